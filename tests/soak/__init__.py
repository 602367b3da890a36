"""A day of a busy scanner, pressed into minutes."""
