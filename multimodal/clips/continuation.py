"""What comes next in a film: the likeliest clips after those that were seen.

Letters in shapes: c clips so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.clips.film_model import FilmModel
from multimodal.clips.films import sequence_of


class NextClip(NamedTuple):
    """A clip that may come next.

    Args:
        clip: its id, that of its cluster.
        probability: among all clips.
    """

    clip: int
    probability: float


def continued(
    model: FilmModel,
    starts: Sequence[Int[Tensor, " _"]],
    words: Sequence[Int[Tensor, " _"] | None],
    steps: int = 3,
    top: int = 3,
) -> list[list[list[NextClip]]]:
    """Return, for each film and each step, the likeliest next clips, the likeliest first (VideoBERT, https://arxiv.org/abs/1904.01766).

    A mask is put after the clips so far, and read; the likeliest clip takes its place, and the next mask follows it. Where clips are more
    than a sequence has room for, the last ones are seen.

    Args:
        model: of words and clips.
        starts: the clips so far of each film, ids in the vocabulary of words and clips; none are needed where there are words.
        words: ids of what is said; None: nothing is.
        steps: clips to find, one after the other, at least 1.
        top: to return of each step, at least 1; at most all clips.

    Raises:
        ValueError: the words leave no room for a clip.
    """
    made = list(starts)
    found: list[list[list[NextClip]]] = [[] for _ in made]
    for _ in range(steps):
        given = [_with_gap(model, clips, said) for clips, said in zip(made, words, strict=True)]
        parts = model.see([ids for ids, _ in given], [hidden for _, hidden in given], "hidden")
        probabilities = torch.cat([model.clip_log_probabilities(seen.tokens).exp().cpu() for seen in parts])
        order = probabilities.argsort(dim=1, descending=True, stable=True)[:, :top]
        for own, best, each in zip(found, order, probabilities, strict=True):
            own.append([NextClip(int(clip), float(each[clip])) for clip in best])
        made = [torch.cat([clips, best[:1] + model.vocabulary.clip_offset]) for clips, best in zip(made, order, strict=True)]
    return found


def _with_gap(model: FilmModel, clips: Int[Tensor, " c"], words: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a sequence with a clip more, and True at it; that it is a clip is said to the encoder, which is not shown."""
    transform, gap = model.transform, clips.new_tensor([model.vocabulary.clip_offset])
    marks = len(transform.item(None if words is None else words[:1], gap).values) - (1 if words is None else 2)
    room = max(1, transform.max_tokens - marks - (0 if words is None else len(words)))
    ids = sequence_of(transform, words, torch.cat([clips, gap])[-room:])
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    hidden[model.vocabulary.is_clip(ids).nonzero()[-1, 0]] = True
    return ids, hidden
