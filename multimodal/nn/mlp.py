"""What a layer does to each token by itself.

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "relu": nn.ReLU,
}


def activation(name: str) -> nn.Module:
    """Return an activation by its name.

    Raises:
        ValueError: there is no such activation.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"act must be one of {', '.join(ACTIVATIONS)}, got {name!r}.")
    return ACTIVATIONS[name]()


class Mlp(nn.Module):
    """Two linear layers with an activation between.

    Args:
        dim: width of input and output.
        ratio: width of the hidden layer, in widths of the input; None: 4.
        hidden_dim: width of the hidden layer; None: ``ratio`` times ``dim``.
        bias: whether the linear layers have one.
        act: the activation; "gelu" is the exact one (erf).
        inner_norm: builds a norm of the hidden layer from its width (sub-LN, BEiT-3); None: no norm.
        dropout: share of outputs dropped in training, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        ratio: float | None = None,
        hidden_dim: int | None = None,
        bias: bool = True,
        act: Activation = "gelu",
        inner_norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden_dim or round(dim * (4 if ratio is None else ratio))
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = activation(act)
        self.inner_norm = inner_norm(hidden) if inner_norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Transform each token by itself."""
        return self.drop(self.fc2(self.inner_norm(self.act(self.fc1(x)))))


class GatedMlp(nn.Module):
    """A linear layer to twice the hidden width, whose activated first half is multiplied by the second (https://arxiv.org/abs/2002.05202).

    Args:
        dim: width of input and output.
        ratio: width of the hidden layer, in widths of the input; None: 8 / 3, which has as many weights as ``Mlp``.
        hidden_dim: width of the hidden layer; None: ``ratio`` times ``dim``. ModernBERT base: 1152.
        bias: whether the linear layers have one. ModernBERT: no.
        act: the activation of the first half.
        dropout: share of outputs dropped in training, in [0, 1).
    """

    def __init__(
        self,
        dim: int,
        ratio: float | None = None,
        hidden_dim: int | None = None,
        bias: bool = True,
        act: Activation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = hidden_dim or round(dim * (8 / 3 if ratio is None else ratio))
        self.fc1 = nn.Linear(dim, 2 * hidden, bias=bias)
        self.act = activation(act)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Transform each token by itself."""
        activated, gate = self.fc1(x).chunk(2, dim=-1)
        return self.drop(self.fc2(self.act(activated) * gate))


class GeGlu(GatedMlp):
    """``GatedMlp`` with GELU (ModernBERT)."""


class SwiGlu(GatedMlp):
    """``GatedMlp`` with SiLU (LLaMA, DINOv2, 4M)."""

    def __init__(
        self, dim: int, ratio: float | None = None, hidden_dim: int | None = None, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__(dim, ratio, hidden_dim, bias, "silu", dropout)
