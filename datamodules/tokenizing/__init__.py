"""Ids that a frozen tokenizer makes once, and how training finds them."""
