"""The language of the first twenty characters of a paragraph."""
