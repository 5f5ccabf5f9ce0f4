"""From shards to batches: order, reading, state."""
