"""What a shard is: its bytes, its keys, and the index of a folder of them."""
