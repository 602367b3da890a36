"""GP-net: network, weights, localiser, training; the only importer of torch."""
