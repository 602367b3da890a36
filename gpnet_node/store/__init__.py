"""What survives a restart: files, database, job state, what is owed to whom."""
