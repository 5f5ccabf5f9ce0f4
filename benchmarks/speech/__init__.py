"""Speech recognition with a quarter of an hour of speech: what pretraining gives."""
