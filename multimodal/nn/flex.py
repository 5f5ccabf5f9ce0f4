"""A plan in the words of FlexAttention (https://arxiv.org/abs/2412.05496): which tokens see each other, and what is added to their logits.

Letters in shapes: n tokens, p places, h heads, l length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal.nn.packing import Packing

Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

BLOCK = 128
"""Queries, and keys, of a block; FlexAttention's own."""


@dataclass(frozen=True)
class FlexPlan:
    """What FlexAttention is given for the tokens of a packing as one sequence.

    Args:
        score: (score, batch, head, query, key) -> the score with the bias of both tokens added; None: there are no biases.
        blocks: which blocks of tokens hold two that see each other.
    """

    score: Score | None
    blocks: Any


def flex_plan(packing: Packing, biases: Sequence[Tensor | None], window: int | None) -> FlexPlan:
    """Return the plan for a packing.

    Args:
        packing: how the tokens lie.
        biases: for each group what is added to the logits, ``(p, h or 1, l or 1, l)``, or None; no entries: nothing is.
        window: a token sees those at most this many places away; None: all of its sequence.
    """
    score = bias_score(packing, biases) if any(bias is not None for bias in biases) else None
    return FlexPlan(score, block_mask(packing, window))


def block_mask(packing: Packing, window: int | None) -> Any:
    """Return the mask of FlexAttention.

    What a block of queries sees lies between the start of its first token's sequence and the end of its last token's, so that the blocks of
    keys are counted and no mask of all pairs of tokens is made.
    """
    from torch.nn.attention.flex_attention import BlockMask

    sequence, index, count = packing.sequence, packing.index, len(packing.sequence)
    last = packing.lengths[sequence] - 1 - index  # tokens of the sequence that follow
    before, after = (index, last) if window is None else (index.clamp(max=window), last.clamp(max=window))
    token = torch.arange(count, device=sequence.device)
    first, final = token[::BLOCK], token[BLOCK - 1 :: BLOCK]
    final = final if len(final) == len(first) else torch.cat([final, token[-1:]])
    low = (token - before)[first] // BLOCK
    high = (token + after)[final] // BLOCK
    order = (low[:, None] + torch.arange(len(first), device=low.device)) % len(first)  # those that are seen come first

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = sequence[query] == sequence[key]
        return same if window is None else same & ((index[query] - index[key]).abs() <= window)

    seen, order = (high - low + 1).int()[None, None], order.int()[None, None]
    return BlockMask.from_kv_blocks(seen, order, BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(count, count))


def bias_score(packing: Packing, biases: Sequence[Tensor | None]) -> Score:
    """Return the function that adds the bias of two tokens to their score.

    The biases of all groups lie in one flat table. A token knows where that of its sequence begins, and how far apart in it are heads and
    queries; the key's index in the sequence is the rest of the way.
    """
    flat, rows = [torch.zeros(1, device=packing.sequence.device)], []
    start = 1
    for group, bias in zip(packing.groups, biases, strict=True):
        count, length = (int(number) for number in group)
        number = torch.arange(count, device=packing.sequence.device).repeat_interleave(length)
        if bias is None:
            rows.append(torch.zeros(count * length, 4, dtype=torch.int64, device=number.device))  # the zero at the front, for all
            continue
        places, heads, queries, _ = bias.shape
        of_head = queries * length
        steps = (of_head if heads > 1 else 0, length if queries > 1 else 0, 1)
        begin = start + (number if places > 1 else 0 * number) * heads * of_head
        rows.append(torch.stack([begin, *(torch.full_like(number, step) for step in steps)], 1))
        flat.append(bias.float().flatten())
        start += bias.numel()
    table, index, end = torch.cat(flat), packing.index, start - 1
    begins, by_head, by_query, by_key = torch.cat(rows).T.contiguous().unbind(0)

    def score(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = begins[query] + head * by_head[query] + index[query] * by_query[query] + index[key] * by_key[query]
        return score + table[place.clamp(max=end)]  # tokens of two sequences are asked for too before they are hidden

    return score
