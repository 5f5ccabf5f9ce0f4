"""Encoders with every option, by name; what holds for all encoders is tested on each. A new option is one more entry."""

from functools import partial

import torch

from multimodal.nn import (
    Alibi,
    Attention,
    BucketedBias,
    ConvPosition,
    DeepNormBlock,
    Encoder,
    GatedBias,
    GeGlu,
    LayerNorm,
    Mlp,
    ParallelBlock,
    PostNormBlock,
    RelativeBias2d,
    RelativeKeyQuery,
    RmsNorm,
    RotaryPosition,
    SwiGlu,
)

GRID = (5, 7)
SIZES = {"dim": 16, "depth": 3, "num_heads": 2}
FINE_NORM = partial(LayerNorm, eps=1e-5)
WINDOW_BIAS = partial(RelativeBias2d, window=GRID)
FEW_BUCKETS = partial(BucketedBias, num_buckets=8, max_distance=9)
GATED = partial(Attention, content_bias=GatedBias)
OPTION_SETS = {
    "plain": {},
    "class token and registers": {"class_token": True, "num_registers": 2, "special_positions": True},
    "query and value bias, layer scale": {"attention": partial(Attention, bias="query_value"), "layer_scale": 0.1},
    "post-norm": {"block": PostNormBlock, "norm_at": "none", "norm": partial(LayerNorm, eps=1e-12)},
    "sub-norm": {"attention": partial(Attention, inner_norm=FINE_NORM), "mlp": partial(Mlp, inner_norm=FINE_NORM), "norm": FINE_NORM},
    "parallel, normed queries": {"block": ParallelBlock, "attention": partial(Attention, qk_norm=RmsNorm)},
    "rms norm, swiglu": {"norm": RmsNorm, "mlp": SwiGlu, "attention": partial(Attention, bias="none")},
    "shared relative bias": {"bias": WINDOW_BIAS, "class_token": True},
    "relative bias of each layer": {"bias": WINDOW_BIAS, "share_bias": False, "class_token": True, "num_registers": 1},
    "deep norm, convolution, gated buckets": {
        "block": DeepNormBlock,
        "attention": GATED,
        "bias": FEW_BUCKETS,
        "convolution": partial(ConvPosition, kernel_size=4, groups=4),
        "norm_at": "input",
    },
    "alibi": {"bias": partial(Alibi, learned_scale=True), "class_token": True},
    "relative key and query": {"attention": partial(Attention, content_bias=partial(RelativeKeyQuery, max_length=40)), "class_token": True},
    "two rotations, window, geglu, no first norm": {
        "rotary": partial(RotaryPosition, max_period=160_000.0),
        "local_rotary": partial(RotaryPosition, max_period=10_000.0),
        "window": 2,
        "global_every": 2,
        "mlp": partial(GeGlu, hidden_dim=24, bias=False),
        "attention": partial(Attention, bias="none", output_bias=False),
        "norm": partial(LayerNorm, bias=False),
        "first_norm": False,
    },
    "gated bias of each layer within a window": {"attention": GATED, "bias": FEW_BUCKETS, "share_bias": False, "window": 1},
    "experts": {"num_experts": 2, "class_token": True, "attention": partial(Attention, inner_norm=LayerNorm)},
    "experts, gated bias of each layer": {"num_experts": 2, "attention": GATED, "bias": WINDOW_BIAS, "share_bias": False},
}


def make(name: str, seed: int = 0, **settings) -> Encoder:
    """An encoder in evaluation mode whose weights all matter, those that start as zeros or ones too."""
    torch.manual_seed(seed)
    encoder = Encoder(**SIZES, **OPTION_SETS[name], **settings).eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return encoder


def places(length: int) -> torch.Tensor:
    """Some places of the grid, none twice, in the order of rows: what an encoder that sees a part of an image is given."""
    chosen = torch.randperm(GRID[0] * GRID[1])[:length].sort().values
    return torch.stack([chosen // GRID[1], chosen % GRID[1]], 1)
