"""What all layers of the encoder share while they attend: which tokens form a sequence, where they lie, and what that adds to the logits.

Letters in shapes: n tokens, g sequences of a group, p places (g, or 1 where all sequences of the group have the same), l their length,
a axes, h heads, e width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from multimodal.nn.flex import FlexPlan, flex_plan
from multimodal.nn.packing import Packing

HIDDEN = -30_000.0
"""Added to the logits of padding: nothing is left of it after the softmax, also in float16, and a row of padding alone stays finite."""


@dataclass(eq=False)  # not frozen: torch.compile reads all of a frozen one, and compiles again where anything differs
class Experts:
    """Which tokens belong to which expert of a multiway encoder.

    Args:
        routes: for each expert the packed positions of its tokens, int64.
        inverse: ``(n,)`` int64, for each packed position the place of its token where those of all experts lie end to end.
    """

    routes: tuple[Tensor, ...]
    inverse: Tensor

    @classmethod
    def of(cls, expert: Int[Tensor, " n"], num_experts: int) -> Experts:
        """Route tokens, given the expert of each in packed order."""
        routes = tuple((expert == number).nonzero()[:, 0] for number in range(num_experts))
        return cls(routes, torch.cat(routes).argsort())

    def merge(self, parts: Sequence[Tensor]) -> Shaped[Tensor, "n ..."]:
        """Return what was made for each expert's tokens, in packed order."""
        return torch.cat(list(parts))[self.inverse]


@dataclass(eq=False)  # not frozen: torch.compile reads all of a frozen one, and compiles again where anything differs
class AttentionPlan:
    """The plan of a batch for the layers that attend alike.

    Args:
        packing: how the tokens lie.
        rotate: turns queries and keys ``(n, h, e)`` by their positions; None: no rotary positions.
        places: for each group the coordinates of its tokens, ``(p, l, a)``; -1 at class and register tokens. None: there are none.
        biases: for each group what is added to the logits, ``(p, h or 1, l or 1, l)``, or None for nothing. It is far below zero where a
            token must not be seen, the window apart.
        window: a token sees those at most this many places away; None: all of its sequence.
        masks: for each group -inf where the window hides one token from another, ``(1, 1, l, l)``, or None where it hides nothing. No
            entries: they are made when asked for.
        experts: whose tokens are whose; None: all tokens are of ``only_expert``.
        only_expert: the expert of all tokens where ``experts`` is None.
    """

    packing: Packing
    rotate: Callable[[Tensor], Tensor] | None = None
    places: tuple[Tensor, ...] | None = None
    biases: tuple[Tensor | None, ...] = ()
    window: int | None = None
    masks: tuple[Tensor | None, ...] = ()
    experts: Experts | None = None
    only_expert: int = 0

    @property
    def biased(self) -> bool:
        """Whether anything is added to the logits of any group, the window apart."""
        return any(bias is not None for bias in self.biases)

    def bias(self, group: int) -> Tensor | None:
        """Return what is added to the logits of a group, the window included."""
        bias = self.biases[group] if self.biases else None
        if self.window is None:
            return bias
        mask = self.masks[group] if self.masks else _window_mask(self.packing.groups[group][1], self.window, self.packing)
        return bias if mask is None else mask if bias is None else bias + mask

    @cached_property
    def flex(self) -> FlexPlan:
        """The same plan for FlexAttention; made once for all layers."""
        return flex_plan(self.packing, self.biases, self.window)

    def place(self, group: int) -> Tensor:
        """Return the coordinates of a group's tokens.

        Raises:
            ValueError: the encoder was given no coordinates.
        """
        if self.places is None:
            raise ValueError("this encoder's attention depends on positions: give it the coordinates of the tokens.")
        return self.places[group]

    def with_biases(self, compute: Callable[[Tensor], Tensor]) -> AttentionPlan:
        """Return the plan with the bias that ``compute`` makes of each group's places added."""
        made = [compute(self.place(i)) for i in range(len(self.packing.groups))]
        return replace(self, biases=tuple(new if old is None else new + old for new, old in zip(made, self._old_biases(), strict=True)))

    def with_padding_hidden(self) -> AttentionPlan:
        """Return the plan with the padding of a padded packing hidden from all tokens."""
        valid = self.packing.valid
        if valid is None:
            return self
        hidden = torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, HIDDEN)[:, None, None]
        return replace(self, biases=tuple(hidden if old is None else old + hidden for old in self._old_biases()))

    def with_window(self, window: int) -> AttentionPlan:
        """Return the plan for layers whose tokens see those at most ``window`` places away in their sequence."""
        if self.packing.sequence.is_cuda and not self.packing.static:
            return replace(self, window=window)  # the kernels of a GPU know windows, and masks of long sequences would fill its memory
        return replace(self, window=window, masks=tuple(_window_mask(length, window, self.packing) for _, length in self.packing.groups))

    def _old_biases(self) -> tuple[Tensor | None, ...]:
        return self.biases or (None,) * len(self.packing.groups)


def _window_mask(length: int | torch.SymInt, window: int, packing: Packing) -> Tensor | None:
    if isinstance(length, int) and length <= window + 1:  # a traced length stays open
        return None
    index = torch.arange(cast(int, length), device=packing.sequence.device)  # torch takes a symbol for a number
    far = (index[:, None] - index).abs() > window
    return torch.zeros(far.shape, device=index.device).masked_fill(far, float("-inf"))[None, None]


def places_of(packing: Packing, coordinates: Shaped[Tensor, "n a"]) -> tuple[Tensor, ...]:
    """Return the coordinates of each group, ``(p, l, a)``: once where all its sequences have the same, whose biases are then made once."""
    blocks = packing.blocks(packing.pack(coordinates)) if packing.groups else []
    return tuple(block[:1] if len(block) > 1 and bool((block == block[:1]).all()) else block for block in blocks)
