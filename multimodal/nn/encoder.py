"""The shared encoder: bidirectional, over packed sequences, of no modality.

Letters in shapes: n tokens, s sequences, d width, a axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.attention import Attention
from multimodal.nn.block import Block, LayerNorm, Mlp
from multimodal.nn.packing import Packing
from multimodal.nn.positions import RotaryPosition


class Encoded(NamedTuple):
    """What the encoder returns.

    Args:
        tokens: ``(n, d)``, in the order of the input.
        class_token: ``(s, d)``, or None for an encoder without class token.
    """

    tokens: Tensor
    class_token: Tensor | None


class Encoder(nn.Module):
    """Pre-norm transformer encoder, shared by all modalities (ViT, https://arxiv.org/abs/2010.11929; BEiT's options).

    The encoder sees vectors, the sequence that each belongs to and, for rotary positions, where each lies in its item. Other positions
    are the embeddings' affair.

    Args:
        dim: width of the tokens.
        depth: number of layers.
        num_heads: attention heads per layer.
        attention_bias: which of the attention's projections have a bias. BEiT: query_value.
        mlp: builds the MLP of a layer from the width.
        norm: builds a norm from the width. The default has the eps of BEiT, 1e-6.
        layer_scale: first value of the layer scale; None: no layer scale. BEiT base 0.1, large 1e-5.
        drop_path: stochastic-depth rate of the last layer; it grows linearly from 0 in the first.
        dropout: share of attention weights dropped in training.
        rotary: builds rotary positions from the width of a head; None: positions come with the tokens alone.
        class_token: whether each sequence gets a learned first token that no modality predicts.

    Raises:
        ValueError: a size below 1, or rates outside [0, 1).
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        attention_bias: Literal["all", "query_value", "none"] = "all",
        mlp: Callable[[int], nn.Module] = Mlp,
        norm: Callable[[int], nn.Module] = LayerNorm,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        rotary: Callable[[int], RotaryPosition] | None = None,
        class_token: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("dim", dim), ("depth", depth), ("num_heads", num_heads)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}.")
        for name, rate in (("drop_path", drop_path), ("dropout", dropout)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} must be in [0, 1), got {rate}.")
        self.dim, self.depth = dim, depth
        attention = partial(Attention, num_heads=num_heads, bias=attention_bias, dropout=dropout)
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, attention, mlp, norm, layer_scale, rate) for rate in rates)
        self.norm = norm(dim)
        self.rotary = rotary(dim // num_heads) if rotary else None
        self.class_token = nn.Parameter(torch.zeros(1, dim)) if class_token else None
        self._initialize()

    def _initialize(self) -> None:
        self.apply(initialize_linear)
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)
        for number, block in enumerate(self.blocks, start=1):  # BEiT: the branches of deep layers start small
            for weight in (block.attn.proj.weight, block.mlp.fc2.weight):
                weight.data.div_(math.sqrt(2 * number))

    def forward(
        self, tokens: Float[Tensor, "n d"], sequence: Int[Tensor, " n"], coordinates: Shaped[Tensor, "n a"] | None = None
    ) -> Encoded:
        """Encode tokens of several sequences, given in any order.

        Args:
            tokens: embedded tokens.
            sequence: the number of the sequence of each token, from 0. Tokens of one sequence see each other and no others.
            coordinates: where each token lies in its item; needed for rotary positions only.
        """
        return self.forward_intermediates(tokens, sequence, coordinates)[0]

    def forward_intermediates(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"] | None = None,
        indices: Sequence[int] = (),
    ) -> tuple[Encoded, list[Float[Tensor, "n d"]]]:
        """Encode, and return also the tokens after the layers ``indices`` (from 0; before the final norm)."""
        num_sequences = 0
        if self.class_token is not None:
            num_sequences = int(sequence.max()) + 1 if len(sequence) else 0
            tokens = torch.cat([self.class_token.expand(num_sequences, -1), tokens])
            sequence = torch.cat([torch.arange(num_sequences, device=sequence.device), sequence])
            coordinates = None if coordinates is None else F.pad(coordinates, (0, 0, num_sequences, 0))
        packing = Packing.from_sequence(sequence)
        rotate = self._rotation(coordinates, packing)
        x = tokens[packing.order]
        intermediates = []
        for index, block in enumerate(self.blocks):
            x = block(x, packing, rotate)
            if index in indices:
                intermediates.append(x[packing.inverse][num_sequences:])
        x = self.norm(x)[packing.inverse]
        return Encoded(x[num_sequences:], None if self.class_token is None else x[:num_sequences]), intermediates

    def _rotation(self, coordinates: Tensor | None, packing: Packing) -> Callable[[Tensor], Tensor] | None:
        if self.rotary is None:
            return None
        if coordinates is None:
            raise ValueError("an encoder with rotary positions needs the coordinates of the tokens.")
        return partial(self.rotary, angles=self.rotary.angles(coordinates[packing.order]))


def initialize_linear(module: nn.Module) -> None:
    """Draw the weights of linear and embedding layers from a truncated normal with std 0.02, and zero the biases (BERT, ViT, BEiT)."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def pool_mean(tokens: Float[Tensor, "n d"], sequence: Int[Tensor, " n"], num_sequences: int) -> Float[Tensor, "s d"]:
    """Return the mean token of each sequence; zeros for a sequence without tokens."""
    total = tokens.new_zeros(num_sequences, tokens.shape[-1]).index_add_(0, sequence, tokens)
    count = torch.bincount(sequence, minlength=num_sequences).clamp(min=1)
    return total / count[:, None]
