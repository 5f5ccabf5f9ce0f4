"""The encoder and its parts."""

from multimodal.nn.attention import Attention
from multimodal.nn.bias import Alibi, BucketedBias, PositionBias, RelativeBias2d
from multimodal.nn.block import Block, BlockParts, DeepNormBlock, ParallelBlock, PostNormBlock
from multimodal.nn.branch import Branch
from multimodal.nn.content_bias import ContentBias, GatedBias, RelativeKeyQuery
from multimodal.nn.conv_decoder import ConvDecoder
from multimodal.nn.decoder import Decoder, TokenDecoder
from multimodal.nn.encoder import Encoded, Encoder
from multimodal.nn.first_weights import FirstWeights, initialize_linear, initialize_vectors
from multimodal.nn.frozen import Frozen
from multimodal.nn.layer_numbers import layer_of
from multimodal.nn.mlp import GatedMlp, GeGlu, Mlp, SwiGlu
from multimodal.nn.norm import DropPath, LayerNorm, LayerScale, RmsNorm
from multimodal.nn.packing import Packing, pool_mean
from multimodal.nn.plan import AttentionPlan
from multimodal.nn.positions import (
    ConvPosition,
    InterleavedSinCosPosition,
    LearnedPosition,
    RotaryPosition,
    SinCosPosition,
    SinCosPosition2d,
    SinCosPosition3d,
)
from multimodal.nn.prediction import Prediction, PredictionHead, RegressionHead, TiedHead, TokenHead
from multimodal.nn.window_decoder import WindowDecoder

__all__ = [
    "Alibi",
    "Attention",
    "AttentionPlan",
    "Block",
    "BlockParts",
    "Branch",
    "BucketedBias",
    "ContentBias",
    "ConvDecoder",
    "ConvPosition",
    "Decoder",
    "DeepNormBlock",
    "DropPath",
    "Encoded",
    "Encoder",
    "FirstWeights",
    "Frozen",
    "GatedBias",
    "GatedMlp",
    "GeGlu",
    "InterleavedSinCosPosition",
    "LayerNorm",
    "LayerScale",
    "LearnedPosition",
    "Mlp",
    "Packing",
    "ParallelBlock",
    "PositionBias",
    "PostNormBlock",
    "Prediction",
    "PredictionHead",
    "RegressionHead",
    "RelativeBias2d",
    "RelativeKeyQuery",
    "RmsNorm",
    "RotaryPosition",
    "SinCosPosition",
    "SinCosPosition2d",
    "SinCosPosition3d",
    "SwiGlu",
    "TiedHead",
    "TokenDecoder",
    "TokenHead",
    "WindowDecoder",
    "initialize_linear",
    "initialize_vectors",
    "layer_of",
    "pool_mean",
]
