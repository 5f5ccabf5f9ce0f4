"""The shared encoder: bidirectional, over packed sequences, of no modality.

Letters in shapes: n tokens, s sequences, d width, a axes, r register tokens, p class and register tokens, l length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from multimodal.nn.attention import Attention
from multimodal.nn.bias import PositionBias
from multimodal.nn.block import Block, BlockParts, PostNormBlock
from multimodal.nn.content_bias import ContentBias, GatedBias
from multimodal.nn.first_weights import FirstWeights
from multimodal.nn.mlp import Mlp
from multimodal.nn.multiway import MultiwayNorm, build, experts_of, normalized
from multimodal.nn.norm import LayerNorm
from multimodal.nn.packing import Packing
from multimodal.nn.plan import AttentionPlan, Experts, places_of
from multimodal.nn.positions import ConvPosition, RotaryPosition, can_be_read
from multimodal.nn.special import SpecialTokens
from multimodal.nn.zero import zero_of
from multimodal.recorded import Recorded

NormAt = Literal["output", "input", "none"]


class Encoded(NamedTuple):
    """What the encoder returns.

    Args:
        tokens: ``(n, d)``, in the order of the input.
        class_token: ``(s, d)``, or None for an encoder without class token.
        registers: ``(s, r, d)``, or None for an encoder without.
    """

    tokens: Tensor
    class_token: Tensor | None
    registers: Tensor | None = None


class Encoder(Recorded, nn.Module):
    """Transformer encoder, shared by all modalities; its options cover the published ones (ViT, BEiT, BERT, BEATs, ModernBERT, BEiT-3 ...).

    The encoder sees vectors, the sequence that each belongs to and, where positions enter the attention, where each lies in its item. Other
    positions are the embeddings' affair.

    Args:
        dim: width of the tokens.
        depth: number of layers.
        num_heads: attention heads per layer.
        block: the kind of layer: ``Block`` (pre-norm), ``PostNormBlock``, ``DeepNormBlock``, ``ParallelBlock``.
        attention: builds the attention of a layer from width and number of heads.
        mlp: builds the MLP of a layer from the width: ``Mlp``, ``GeGlu``, ``SwiGlu``.
        norm: builds a norm from the width. The default has the eps of BEiT, 1e-6.
        norm_at: where a norm stands beside those of the layers: "output" (pre-norm encoders), "input" (BEATs), or "none" (BERT).
        first_norm: False leaves out the norm before the first layer's attention, as ModernBERT does, whose embedding ends in one.
        layer_scale: first value of the layer scale; None: no layer scale. BEiT base 0.1, large 1e-5.
        drop_path: stochastic-depth rate of the last layer; it grows linearly from 0 in the first.
        rotary: builds rotary positions from the width of a head; None: none.
        bias: builds what the places of two tokens add to the logits, from the number of heads; None: nothing.
        share_bias: one bias for all layers, made once per step (BEiT pretraining, BEATs), or one for each (BEiT fine-tuning).
        convolution: builds convolutional positions, added before the first layer, from the width; None: none.
        window: local layers see tokens at most this many places away (ModernBERT: 64); None: all layers are global.
        global_every: with a window, layers 0, this, twice this ... stay global.
        local_rotary: rotary positions of the local layers; None: as ``rotary``.
        class_token: whether each sequence gets a learned first token that no modality predicts.
        num_registers: learned tokens after the class token (DINOv2 registers; the distillation token of DeiT and AST).
        special_positions: whether class and register tokens have learned positions of their own (ViT, MAE).
        num_experts: weights that tokens of different experts do not share (Multiway); class and register tokens are of expert 0, and only
            sequences with such tokens have them.
        checkpoint_activations: compute a layer's activations again in the backward pass: less memory, a third more work.
        first_weights: how linear layers and special tokens start: "normal", "clipped_normal" (BEiT) or "xavier_uniform" (MAE). But for
            the last, what ends a branch of layer l is divided by the root of 2 l. ``DeepNormBlock`` has its own.

    Raises:
        ValueError: a size below 1, a rate outside [0, 1), or settings that have no effect together.
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        block: Callable[[BlockParts], Block] = Block,
        attention: Callable[[int, int], Attention] = Attention,
        mlp: Callable[[int], nn.Module] = Mlp,
        norm: Callable[[int], nn.Module] = LayerNorm,
        norm_at: NormAt = "output",
        first_norm: bool = True,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        rotary: Callable[[int], RotaryPosition] | None = None,
        bias: Callable[[int], PositionBias] | None = None,
        share_bias: bool = True,
        convolution: Callable[[int], ConvPosition] | None = None,
        window: int | None = None,
        global_every: int = 3,
        local_rotary: Callable[[int], RotaryPosition] | None = None,
        class_token: bool = False,
        num_registers: int = 0,
        special_positions: bool = False,
        num_experts: int = 1,
        checkpoint_activations: bool = False,
        first_weights: FirstWeights = "normal",
    ) -> None:
        super().__init__()
        _check_sizes(dim=dim, depth=depth, num_heads=num_heads, num_experts=num_experts, global_every=global_every, window=window)
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {drop_path}.")
        if norm_at not in get_args(NormAt):
            raise ValueError(f"norm_at must be one of {', '.join(get_args(NormAt))}, got {norm_at!r}.")
        if local_rotary and (window is None or rotary is None):
            raise ValueError("local_rotary has an effect only with window and rotary: set them, or leave it out.")
        if num_registers and not class_token:
            raise ValueError(f"num_registers {num_registers} needs a class_token, which they follow.")
        if special_positions and not class_token:
            raise ValueError("special_positions has an effect only with a class_token: set it, or leave it out.")
        self.dim, self.depth, self.num_heads, self.num_experts = dim, depth, num_heads, num_experts
        self.window, self.global_every, self.checkpoint_activations = window, global_every, checkpoint_activations
        parts = BlockParts(dim, depth, partial(_attention, attention, num_heads), mlp, norm, layer_scale, first_weights=first_weights)
        self._make_block, self._make_bias = partial(_make_block, block, parts, drop_path), None if share_bias else bias
        self.blocks = nn.ModuleList(build(partial(self._make_block, number), num_experts) for number in range(depth))
        self.input_norm = self._norm(norm) if norm_at == "input" else None
        self.norm = self._norm(norm) if norm_at == "output" else None
        self.rotary = rotary(dim // num_heads) if rotary else None
        self.local_rotary = local_rotary(dim // num_heads) if local_rotary else None
        self.convolution = convolution(dim) if convolution else None
        self.bias = bias(num_heads) if bias and share_bias else None  # one for all layers; else each has its own
        special = int(class_token) + num_registers
        self.special = SpecialTokens(dim, special, special_positions, first_weights) if special else None
        for number, layer in enumerate(self.blocks, start=1):
            layer.initialize(number)
        if not first_norm:
            self._leave_out_first_norm()
        if bias and not share_bias:
            for number in range(depth):
                self.layers(number)[0].attn.set_position_bias(bias(num_heads))  # experts have one together
        if bias is None and any(isinstance(module, GatedBias) for module in self.modules()):
            raise ValueError("GatedBias scales the encoder's position bias: give the encoder one (bias: multimodal.nn.BucketedBias).")

    def new_layer(self, number: int) -> nn.Module:
        """Return a new layer in the place of layer ``number`` (from 0): its kind, its stochastic depth and its first weights."""
        layer = build(partial(self._make_block, number), self.num_experts)
        layer.initialize(number + 1)
        if self._make_bias is not None:
            experts_of(layer)[0].attn.set_position_bias(self._make_bias(self.num_heads))
        return layer

    def _leave_out_first_norm(self) -> None:
        for layer in self.layers(0):
            if isinstance(layer, PostNormBlock):
                raise ValueError(f"first_norm leaves out the norm before attention, which a {type(layer).__name__} does not have.")
            layer.norm1 = nn.Identity()

    def _norm(self, norm: Callable[[int], nn.Module]) -> nn.Module:
        return norm(self.dim) if self.num_experts == 1 else MultiwayNorm([norm(self.dim) for _ in range(self.num_experts)])

    def layers(self, number: int | None = None) -> list[Block]:
        """Return the blocks of all layers, or of layer ``number``; of a multiway encoder those of each expert."""
        blocks = self.blocks if number is None else [self.blocks[number]]
        return [expert for block in blocks for expert in experts_of(block)]

    def forward(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"] | None = None,
        expert: Int[Tensor, " n"] | None = None,
        wanted: Bool[Tensor, " n"] | None = None,
    ) -> Encoded:
        """Encode tokens of several sequences, given in any order.

        Args:
            tokens: embedded tokens.
            sequence: the number of the sequence of each token, from 0. Tokens of one sequence see each other and no others.
            coordinates: where each token lies in its item; needed where positions enter the attention.
            expert: of each token, below ``num_experts``; None: all of expert 0.
            wanted: True at the tokens to return, in their order; None: all. The last layer then works for these alone, and class and
                register tokens.

        Raises:
            ValueError: coordinates are missing, or do not fit the encoder's positions; an expert that there is not.
        """
        return self.forward_layers(tokens, sequence, coordinates, expert=expert, wanted=wanted)[0]

    def forward_intermediates(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"] | None = None,
        indices: Sequence[int] = (),
        expert: Int[Tensor, " n"] | None = None,
        wanted: Bool[Tensor, " n"] | None = None,
    ) -> tuple[Encoded, list[Float[Tensor, "n d"]]]:
        """Encode, and return also all tokens after the layers ``indices`` (from 0; before the final norm)."""
        at_once = None if self.depth - 1 in indices else wanted  # else the last layer is to work for all tokens
        encoded, layers = self.forward_layers(tokens, sequence, coordinates, indices, expert, at_once)
        if wanted is not None and at_once is None:
            encoded = encoded._replace(tokens=encoded.tokens[wanted])
        return encoded, [layer.tokens for layer in layers]

    def forward_layers(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"] | None = None,
        indices: Sequence[int] = (),
        expert: Int[Tensor, " n"] | None = None,
        wanted: Bool[Tensor, " n"] | None = None,
    ) -> tuple[Encoded, list[Encoded]]:
        """Encode, and return also what stands after the layers ``indices``, before the final norm, special tokens included.

        The first layer comes first; of the last layer of all only the tokens ``wanted`` are there.
        """
        expert = expert if self.num_experts > 1 else None
        if self.special is None:
            x, seen = self.forward_packed(tokens, sequence, coordinates, expert, indices, wanted)
            return Encoded(x, None), [Encoded(layer, None) for layer in seen]
        given = len(tokens)
        tokens, sequence, coordinates, expert, owners, num_sequences = self.special.prepend(tokens, sequence, coordinates, expert)
        wanted = None if wanted is None else F.pad(wanted, (len(tokens) - given, 0), value=True)
        x, seen = self.forward_packed(tokens, sequence, coordinates, expert, indices, wanted)
        read = partial(self._read, owners=owners, num_sequences=num_sequences)
        return read(x), [read(layer) for layer in seen]

    def _read(self, x: Tensor, owners: Tensor, num_sequences: int) -> Encoded:
        """Set the special tokens apart, which come first."""
        assert self.special is not None
        firsts, start = self.special.read(x, owners, num_sequences), len(owners) * self.special.count
        return Encoded(x[start:], firsts[:, 0], firsts[:, 1:] if self.special.count > 1 else None)

    def forward_packed(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"] | None = None,
        expert: Int[Tensor, " n"] | None = None,
        indices: Sequence[int] = (),
        wanted: Bool[Tensor, " n"] | None = None,
        blocks: nn.ModuleList | None = None,
    ) -> tuple[Float[Tensor, "_ d"], list[Float[Tensor, "_ d"]]]:
        """Encode tokens among which the class and register tokens are already: what the other ways to encode packed sequences come down to.

        Args:
            tokens: of all sequences; special tokens have the coordinates -1.
            sequence: as in ``forward``.
            coordinates: as in ``forward``.
            expert: as in ``forward``.
            indices: layers whose tokens to return too (from 0; before the final norm).
            wanted: True at the tokens to return, of the output and of the last layer.
            blocks: layers that run in place of the encoder's and of what comes before them; the final norm follows. They are all global.
        """
        packing = Packing.from_sequence(sequence)
        experts = None if expert is None else Experts.of(packing.pack(expert), self.num_experts)
        if experts is not None and len(experts.inverse) < len(tokens):
            raise ValueError(f"experts must be from 0 to {self.num_experts - 1}, got {int(expert.min())} to {int(expert.max())}.")
        self._check_coordinates(coordinates)
        places = None if coordinates is None or not self._needs_places else places_of(packing, coordinates)
        if not packing.groups:
            tokens = tokens + zero_of(self.parameters())  # a step of no tokens gives every parameter a gradient
        plans = self._plans(
            AttentionPlan(packing, places=places, experts=experts), None if coordinates is None else packing.pack(coordinates)
        )
        last = None if wanted is None or experts is not None else packing.pack(wanted).nonzero()[:, 0]
        x, seen = self._run(packing.pack(tokens), plans, indices, last, blocks)
        whole = len(seen) - (blocks is None and self.depth - 1 in indices)  # layers of which all tokens are there
        made = [packing.unpack(layer, last) for layer in (x, *seen[whole:])]
        made = made if wanted is None or last is not None else [layer[wanted] for layer in made]
        return made[0], [packing.unpack(layer) for layer in seen[:whole]] + made[1:]

    def forward_dense(
        self,
        tokens: Float[Tensor, "s l d"],
        coordinates: Shaped[Tensor, "l a"] | None = None,
        valid: Bool[Tensor, "s l"] | None = None,
        expert: int = 0,
        indices: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "s m d"], list[Float[Tensor, "s m d"]]]:
        """Encode sequences of one length; class and register tokens come first in the result. It can be traced and exported.

        Args:
            tokens: embedded tokens.
            coordinates: where the tokens lie, the same for all sequences; needed where positions enter the attention.
            valid: True at real tokens; None: all are. What stands at padding in the result means nothing.
            expert: of all tokens, below ``num_experts``.
            indices: layers whose tokens to return too (from 0; before the final norm).

        Raises:
            ValueError: as ``forward``; while the model is traced, no coordinates are looked at.
        """
        count = tokens.shape[0]  # len() would be a fixed number in an exported model
        if not 0 <= expert < self.num_experts:
            raise ValueError(f"expert must be from 0 to {self.num_experts - 1}, got {expert}.")
        if self.special is not None and expert == 0:
            special = self.special.count
            tokens = self.special.prepend_dense(tokens)
            coordinates = None if coordinates is None else F.pad(coordinates, (0, 0, special, 0), value=-1)
            valid = None if valid is None else F.pad(valid, (special, 0), value=True)
        self._check_coordinates(coordinates)
        packing = Packing.dense(count, tokens.shape[1], tokens.device, valid)
        plan = AttentionPlan(packing, places=None if coordinates is None else (coordinates[None],), only_expert=expert)
        plans = self._plans(plan, None if coordinates is None else coordinates.repeat(count, 1))
        x, seen = self._run(tokens.flatten(0, 1), plans, indices)
        return x.unflatten(0, packing.groups[0]), [layer.unflatten(0, packing.groups[0]) for layer in seen]

    def _run(
        self,
        x: Tensor,
        plans: tuple[AttentionPlan, AttentionPlan],
        indices: Sequence[int],
        wanted: Tensor | None = None,
        blocks: nn.ModuleList | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the tokens after the encoder, all or those at packed positions ``wanted``, and those after the layers ``indices``.

        With ``blocks``, these run in place of the encoder's layers and of what comes before them.
        """
        everywhere, local = plans
        if blocks is None and self.convolution is not None:
            x = self.convolution(x, everywhere.packing)
        if blocks is None and self.input_norm is not None:
            x = normalized(self.input_norm, x, everywhere)
        seen, layers = [], self.blocks if blocks is None else blocks
        recompute = self.checkpoint_activations and self.training and torch.is_grad_enabled()
        for index, block in enumerate(layers):
            plan = everywhere if blocks is not None or index % self.global_every == 0 else local
            own = wanted if index == len(layers) - 1 else None
            x = checkpoint(block, x, plan, own, use_reentrant=False) if recompute else block(x, plan, own)
            if index in indices:
                seen.append(x)
        return x if self.norm is None else normalized(self.norm, x, everywhere), seen

    def _plans(self, plan: AttentionPlan, coordinates: Tensor | None) -> tuple[AttentionPlan, AttentionPlan]:
        """Return the plans of the global and of the local layers; coordinates in packed order."""
        plan = replace(plan.with_padding_hidden(), rotate=_rotation(self.rotary, coordinates))
        plan = plan if self.bias is None else plan.with_biases(self.bias)
        if self.window is None:
            return plan, plan
        local = plan.with_window(self.window)
        return plan, local if self.local_rotary is None else replace(local, rotate=_rotation(self.local_rotary, coordinates))

    def _check_coordinates(self, coordinates: Tensor | None) -> None:
        bias = self._position_bias
        if bias is None:
            return
        if coordinates is None:
            raise ValueError(f"an encoder with a {type(bias).__name__} needs the coordinates of the tokens.")
        if can_be_read(coordinates):
            bias.check(coordinates)

    @property
    def _position_bias(self) -> PositionBias | None:
        """The bias of all layers, or of the first: those of the others are alike."""
        bias = self.bias if self.bias is not None else self.layers(0)[0].attn.position_bias
        return cast(PositionBias | None, bias)

    @property
    def reads_order(self) -> bool:
        """Whether the order in which tokens are given changes what becomes of them, and not their places alone."""
        parts = list(self.modules())[1:]
        return self.window is not None or self.convolution is not None or any(getattr(part, "reads_order", False) for part in parts)

    @cached_property
    def _needs_places(self) -> bool:
        return any(isinstance(module, PositionBias | ContentBias) for module in self.modules())


def _rotation(rotary: RotaryPosition | None, coordinates: Tensor | None) -> Callable[[Tensor], Tensor] | None:
    if rotary is None:
        return None
    if coordinates is None:
        raise ValueError("an encoder with rotary positions needs the coordinates of the tokens.")
    return partial(rotary, angles=rotary.angles(coordinates))


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def _make_block(make: Callable[[BlockParts], Block], parts: BlockParts, drop_path: float, number: int) -> Block:
    """Return a layer with the stochastic depth of layer ``number``."""
    return make(parts._replace(drop_path=drop_path * number / max(parts.depth - 1, 1)))


def _attention(make: Callable[[int, int], Attention], num_heads: int, dim: int) -> Attention:
    return make(dim, num_heads)
