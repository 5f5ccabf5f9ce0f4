"""Summands of the pretraining loss."""

from multimodal.objectives.masked_tokens import EncodedView, MaskedTokens, Objective, Term

__all__ = ["EncodedView", "MaskedTokens", "Objective", "Term"]
