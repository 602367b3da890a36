"""Hostile bytes: valid messages and files with a few things wrong, against a running node and its readers."""
