"""Films of real digits that drift over clutter: which digit, and where to."""
