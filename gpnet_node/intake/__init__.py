"""What both protocols do with one instance, on its way into the archive and out of it."""
