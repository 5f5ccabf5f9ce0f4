"""Sounds told apart by fine-tuning an encoder, and by support vector machines."""
