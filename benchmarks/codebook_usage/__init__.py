"""How much of its codebook VQ-KD uses."""
