"""The encoder and its parts."""

from multimodal.nn.attention import Attention
from multimodal.nn.block import Block, DropPath, LayerNorm, LayerScale, Mlp
from multimodal.nn.encoder import Encoded, Encoder, initialize_linear, pool_mean
from multimodal.nn.packing import Packing
from multimodal.nn.positions import LearnedPosition, RotaryPosition, SinCosPosition, SinCosPosition2d
from multimodal.nn.prediction import Prediction, PredictionHead

__all__ = [
    "Attention",
    "Block",
    "DropPath",
    "Encoded",
    "Encoder",
    "LayerNorm",
    "LayerScale",
    "LearnedPosition",
    "Mlp",
    "Packing",
    "Prediction",
    "PredictionHead",
    "RotaryPosition",
    "SinCosPosition",
    "SinCosPosition2d",
    "initialize_linear",
    "pool_mean",
]
