"""Measures a segmentation and writes the objects that leave the node; the only importer of highdicom's writers."""
