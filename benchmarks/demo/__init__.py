"""The demo: one encoder pretrained on real digits and real music, from shards, and what it learned."""
