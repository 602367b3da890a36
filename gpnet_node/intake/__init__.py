"""What an instance goes through on its way into the archive, whichever protocol brings it."""
