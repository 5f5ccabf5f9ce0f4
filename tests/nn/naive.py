"""The encoder's arithmetic written out from the papers, with loops over heads and tokens: what the tests compare with.

Letters in shapes: l tokens of one sequence, d width, h heads, e width of a head.
"""

import math

import torch
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x @ weight.T if bias is None else x @ weight.T + bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | float = 0.0, eps: float = 1e-6) -> Tensor:
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def heads(x: Tensor, num_heads: int) -> list[Tensor]:
    """(l, d) -> one (l, e) for each head."""
    width = x.shape[1] // num_heads
    return [x[:, number * width : (number + 1) * width] for number in range(num_heads)]


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention of one head over one sequence, ``(l, e)``; bias ``(l, l)``."""
    mixed = []
    for i, q in enumerate(query):
        logits = torch.stack([q @ k / math.sqrt(len(q)) + (0 if bias is None else bias[i, j]) for j, k in enumerate(key)])
        weights = torch.exp(logits - logits.max())
        mixed.append(sum(weight * v for weight, v in zip(weights / weights.sum(), value, strict=True)))
    return torch.stack(mixed)


def self_attention(x: Tensor, layer: dict[str, Tensor], num_heads: int, bias: Tensor | None = None, **norms) -> Tensor:
    """Multi-head self-attention with the weights of a layer, by name; bias ``(h, l, l)``.

    norms: what is done to the query and the key of a head (``qk``), and to the joined heads (``inner``).
    """
    three = linear(x, layer["qkv.weight"], layer.get("qkv.bias"))
    query, key, value = (heads(part, num_heads) for part in three.split(x.shape[1], 1))
    qk, inner = norms.get("qk", lambda q, k: (q, k)), norms.get("inner", lambda mixed: mixed)
    mixed = [attend(*qk(query[h], key[h]), value[h], None if bias is None else bias[h]) for h in range(num_heads)]
    return linear(inner(torch.cat(mixed, 1)), layer["proj.weight"], layer.get("proj.bias"))


def mlp(x: Tensor, layer: dict[str, Tensor]) -> Tensor:
    return linear(gelu(linear(x, layer["fc1.weight"], layer["fc1.bias"])), layer["fc2.weight"], layer["fc2.bias"])


def weights_under(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """The weights whose name begins with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in module.state_dict().items() if name.startswith(prefix)}
