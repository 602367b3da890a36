"""What a node survives: faults at each step of a series, driven through real processes and real peers."""
