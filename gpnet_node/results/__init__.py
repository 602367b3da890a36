"""Measures a segmentation, writes what leaves the node and checks it (only here by highdicom's writers)."""
