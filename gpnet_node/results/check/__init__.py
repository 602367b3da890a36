"""What was written, read back and compared by code that shares nothing with the writers."""
