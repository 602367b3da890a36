"""Heads that never existed: anatomies of people, divided by atlases, and what a scanner makes of them."""
