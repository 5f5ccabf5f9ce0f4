"""Look at shards, check them, measure them."""
