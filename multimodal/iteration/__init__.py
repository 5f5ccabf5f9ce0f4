"""Tokenizer, ids, encoder, and the next tokenizer from that encoder: rounds of self-distillation as one resumable job."""
