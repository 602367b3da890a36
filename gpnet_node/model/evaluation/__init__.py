"""How good the weights are: fixed cohorts, atlases on the same images, metrics, and the bars."""
