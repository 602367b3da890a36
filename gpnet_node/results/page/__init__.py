"""The one picture: cuts, surfaces, measurements, quality and provenance on one page."""
