"""From samples to weights: what is trained on, what is asked for, and a loop that can be stopped."""
