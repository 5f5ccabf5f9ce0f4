"""Key maps of layers that several families share, and the settings that go with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from multimodal.pretrained.keymap import Entry, joined, pair, same, shaped, stacked
from multimodal.pretrained.settings import part

Bias = Literal["all", "query_value", "none"]
NN = "multimodal.nn."


@dataclass(frozen=True)
class TrunkSizes:
    """What the tensors of every family tell; a family's own ``Sizes`` add to it.

    Args:
        dim: width.
        depth: layers.
        heads: attention heads.
        hidden: width of the MLP.
    """

    dim: int
    depth: int
    heads: int
    hidden: int


class LayerNames(NamedTuple):
    """What a family calls the parts of a layer; query, key and value are apart.

    Args:
        query: projection to queries; so key, value.
        key: see query.
        value: see query.
        proj: projection of the mixed heads.
        norm1: the first norm.
        norm2: the second norm.
        fc1: first linear layer of the MLP.
        fc2: second linear layer of the MLP.
        scale1: layer scale of attention; "" for none.
        scale2: layer scale of the MLP.
    """

    query: str
    key: str
    value: str
    proj: str
    norm1: str
    norm2: str
    fc1: str
    fc2: str
    scale1: str = ""
    scale2: str = ""


def fused_layers(depth: int, ours: str, theirs: str, bias: Bias = "all", scales: bool = False) -> list[Entry]:
    """Return the entries of layers named as in timm and unilm: ``norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2, gamma_1, gamma_2``.

    Args:
        depth: number of layers.
        ours: our name of a layer, with ``{}`` for its number.
        theirs: their name of a layer, with ``{}`` for its number.
        bias: of the projections; "query_value" is stored as ``attn.q_bias`` and ``attn.v_bias``.
        scales: whether there is layer scale.
    """
    entries = []
    for i in range(depth):
        a, b = ours.format(i), theirs.format(i)
        entries += [*pair(f"{a}.norm1", f"{b}.norm1"), *pair(f"{a}.norm2", f"{b}.norm2"), *pair(f"{a}.attn.proj", f"{b}.attn.proj")]
        entries += [*pair(f"{a}.mlp.fc1", f"{b}.mlp.fc1"), *pair(f"{a}.mlp.fc2", f"{b}.mlp.fc2")]
        entries += pair(f"{a}.attn.qkv", f"{b}.attn.qkv", bias=bias == "all")
        if bias == "query_value":
            entries.append(stacked(f"{a}.attn.query_value_bias", [f"{b}.attn.q_bias", f"{b}.attn.v_bias"]))
        if scales:
            entries += [same(f"{a}.scale{n}.gamma", f"{b}.gamma_{n}") for n in (1, 2)]
    return entries


def separate_layers(depth: int, ours: str, theirs: str, names: LayerNames, bias: Bias = "all") -> list[Entry]:
    """Return the entries of layers whose query, key and value are apart (transformers).

    Args:
        depth: number of layers.
        ours: our name of a layer, with ``{}`` for its number.
        theirs: their name of a layer, with ``{}`` for its number; may end in "." or be "" when the names hold it.
        names: of the parts, after ``theirs``.
        bias: of the projections.
    """
    entries = []
    for i in range(depth):
        a, b = ours.format(i), theirs.format(i) + "."
        for mine, its in (
            ("norm1", names.norm1),
            ("norm2", names.norm2),
            ("attn.proj", names.proj),
            ("mlp.fc1", names.fc1),
            ("mlp.fc2", names.fc2),
        ):
            entries += pair(f"{a}.{mine}", b + its)
        qkv = [b + name for name in (names.query, names.key, names.value)]
        entries.append(joined(f"{a}.attn.qkv.weight", [f"{name}.weight" for name in qkv]))
        if bias == "all":
            entries.append(joined(f"{a}.attn.qkv.bias", [f"{name}.bias" for name in qkv]))
        if bias == "query_value":
            entries.append(stacked(f"{a}.attn.query_value_bias", [f"{qkv[0]}.bias", f"{qkv[2]}.bias"]))
        if names.scale1:
            entries += [same(f"{a}.scale1.gamma", b + names.scale1), same(f"{a}.scale2.gamma", b + names.scale2)]
    return entries


def patch_projection(ours: str, theirs: str, weight_shape: Sequence[int], bias: bool = True) -> list[Entry]:
    """Return the entries of a patch embedding: their convolution is our linear layer, its numbers in the same order."""
    dim, numbers = weight_shape[0], math.prod(weight_shape[1:])
    weight = shaped(f"{ours}.weight", f"{theirs}.weight", (dim, numbers), weight_shape)
    return [weight, same(f"{ours}.bias", f"{theirs}.bias")] if bias else [weight]


def norm(eps: float, **more: Any) -> dict[str, Any]:
    """Return the settings of a layer norm."""
    return part(NN + "LayerNorm", eps=eps, **more)


def attention(bias: Bias = "all", **more: Any) -> dict[str, Any]:
    """Return the settings of an attention."""
    return part(NN + "Attention", bias=bias, **more)


def mlp(hidden: int, **more: Any) -> dict[str, Any]:
    """Return the settings of an MLP."""
    return part(NN + "Mlp", hidden_dim=hidden, **more)


def encoder(dim: int, depth: int, num_heads: int, **more: Any) -> dict[str, Any]:
    """Return the settings of an encoder."""
    return part(NN + "Encoder", dim=dim, depth=depth, num_heads=num_heads, **more)
