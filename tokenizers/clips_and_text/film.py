"""A film as its clips and captions, and where in time the two meet.

Letters in shapes: c clips of a film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.tokenizers.clips_and_text.captions import Caption


@dataclass(frozen=True)
class Film:
    """What is known of a film: what its clips show, and what is said.

    Args:
        middles: ``(c,)`` float, the middle of each clip in seconds, in the order of the clips.
        clips: ``(c,)`` int64, their ids in the joint vocabulary.
        sentences: in order of time; where there are no clips, times count for nothing.
    """

    middles: Float[Tensor, " c"]
    clips: Int[Tensor, " c"]
    sentences: Sequence[Caption]

    @classmethod
    def of_text(cls, sentences: Sequence[Caption]) -> Film:
        """Return a text without a film."""
        return cls(torch.zeros(0), torch.zeros(0, dtype=torch.int64), sentences)

    def clips_between(self, start: float, end: float) -> Int[Tensor, " k"]:
        """Return the numbers of the clips whose middles lie from ``start`` to before ``end``, in seconds."""
        return ((self.middles >= start) & (self.middles < end)).nonzero()[:, 0]

    @cached_property
    def shown(self) -> list[int]:
        """The sentences in whose spans there are clips."""
        if not len(self.clips) or not self.sentences:
            return []
        spans = torch.tensor([(start, end) for start, end, _ in self.sentences])
        before = torch.searchsorted(self.middles.sort().values, spans)  # as many clips have their middle before a time
        return (before[:, 1] > before[:, 0]).nonzero()[:, 0].tolist()


@dataclass(frozen=True)
class Passage:
    """Sentences of a film that follow each other.

    Args:
        film: theirs.
        first: number of the first.
        last: number of the last; where the film ends before it, the film's last.
    """

    film: Film
    first: int
    last: int

    @property
    def sentences(self) -> Sequence[Caption]:
        """The sentences."""
        return self.film.sentences[self.first : self.last + 1]

    @property
    def text(self) -> str:
        """What is said."""
        return " ".join(sentence.text for sentence in self.sentences)

    @cached_property
    def clips(self) -> Int[Tensor, " k"]:
        """The numbers of the clips in the spans of the sentences, each once; between two sentences there may be others."""
        inside = torch.zeros(len(self.film.clips), dtype=torch.bool)
        for start, end, _ in self.sentences:
            inside[self.film.clips_between(start, end)] = True
        return inside.nonzero()[:, 0]

    def other(self, generator: torch.Generator) -> Passage | None:
        """Return a passage of as many sentences that shows at least one clip, and none of this one's; None: the film has no such."""
        own = set(self.clips.tolist())
        for place in torch.randperm(len(self.film.shown), generator=generator).tolist():
            first = self.film.shown[place]
            found = Passage(self.film, first, first + self.last - self.first)
            if own.isdisjoint(found.clips.tolist()):
                return found
        return None
