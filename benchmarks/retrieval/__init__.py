"""Texts found by their translations and titles, and captions by their pictures."""
