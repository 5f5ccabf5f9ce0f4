"""Foreign formats, one family a file; ``registry`` finds them."""
