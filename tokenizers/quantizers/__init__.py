"""Vectors -> codes: what the tokenizers of all modalities share."""

from multimodal.tokenizers.quantizers.codebook import Codebook
from multimodal.tokenizers.quantizers.euclidean_codebook import EuclideanCodebook
from multimodal.tokenizers.quantizers.finite_scalar import FiniteScalarQuantizer
from multimodal.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from multimodal.tokenizers.quantizers.nearest import nearest_code
from multimodal.tokenizers.quantizers.quantizer import Quantized, Quantizer
from multimodal.tokenizers.quantizers.residual import ResidualQuantizer

__all__ = [
    "Codebook",
    "EuclideanCodebook",
    "FiniteScalarQuantizer",
    "LookupFreeQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "nearest_code",
]
