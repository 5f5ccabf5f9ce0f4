"""Hidden voices and hidden bars of chorales, filled in by a masked model."""
