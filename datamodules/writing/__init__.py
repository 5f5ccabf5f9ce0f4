"""Write samples of any source into shards."""
