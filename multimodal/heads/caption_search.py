"""The likeliest texts that a decoder writes, by beam search.

Letters in shapes: b texts, k beams, m tokens that were seen, l ids so far.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multimodal.heads.captioner import CaptionDecoder


class Written(NamedTuple):
    """A text.

    Args:
        ids: ``(l,)`` int64, without those that begin and end it.
        score: log-probability over the number of ids, that at the end included, to the power of the length penalty.
    """

    ids: Tensor
    score: float


@torch.no_grad()
def write_texts(
    decoder: CaptionDecoder,
    memory: Float[Tensor, "b m width"],
    valid: Bool[Tensor, "b m"],
    beam_size: int = 5,
    length_penalty: float = 1.0,
) -> list[Written]:
    """Return the best text found about each; one that has not ended after ``max_ids`` ids is cut there.

    Of each text the ``beam_size`` likeliest beginnings are kept after each id. The search ends when so many texts have ended while they
    were among the likeliest, or none of the beginnings can come to a better score.

    Args:
        decoder: in evaluation mode.
        memory: see ``CaptionDecoder.read``.
        valid: see ``CaptionDecoder``.
        beam_size: 1: greedy.
        length_penalty: 0: the likeliest text, which favours short ones; 1: the best mean log-probability.

    Raises:
        ValueError: ``beam_size`` is below 1, or the penalty outside [0, 2].
    """
    if beam_size < 1 or not 0 <= length_penalty <= 2:
        raise ValueError(f"beam_size must be at least 1 and length_penalty in [0, 2], got {beam_size} and {length_penalty}.")
    return [_one(decoder, memory[i : i + 1, valid[i]], beam_size, length_penalty) for i in range(len(memory))]


def _one(decoder: CaptionDecoder, memory: Float[Tensor, "1 m width"], beam_size: int, penalty: float) -> Written:
    ids = torch.tensor([[decoder.begin_id]], device=memory.device)  # k l
    total = torch.zeros(1, dtype=torch.float64, device=memory.device)
    ended: list[Written] = []
    for length in range(1, decoder.max_ids + 1):
        read = memory.expand(len(ids), -1, -1)
        steps = total[:, None] + decoder(ids, read, torch.ones_like(read[..., 0], dtype=torch.bool))[:, -1].double().log_softmax(1)
        best, chosen = steps.flatten().topk(min(2 * beam_size, steps.numel()))  # so many are left when every beginning has ended
        beam, added = chosen // steps.shape[1], chosen % steps.shape[1]
        ends = added == decoder.end_id
        for place in ends[:beam_size].nonzero()[:, 0].tolist():
            ended.append(Written(ids[beam[place], 1:], float(best[place]) / length**penalty))
        goes_on = (~ends).nonzero()[:beam_size, 0]
        ids, total = torch.cat([ids[beam[goes_on]], added[goes_on, None]], 1), best[goes_on]
        score = max((text.score for text in ended), default=-torch.inf)
        if len(ended) >= beam_size or float(total[0]) / (decoder.max_ids + 1) ** penalty <= score:
            break
    else:
        ended.append(Written(ids[0, 1:], float(total[0]) / decoder.max_ids**penalty))
    return max(ended, key=lambda text: text.score)
