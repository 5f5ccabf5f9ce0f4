"""Vectors -> codes: what the tokenizers of all modalities share."""

from multimodal.tokenizers.quantizers.codebook import Codebook
from multimodal.tokenizers.quantizers.nearest import nearest_code

__all__ = ["Codebook", "nearest_code"]
