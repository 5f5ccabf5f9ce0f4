"""How well the tags of words are told: of single words, and of the names (entities) that tags of several words make together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal.training.scores import ClassScores

OUTSIDE = "O"
FIRST, LAST = frozenset("BSU"), frozenset("ESLU")
"""Prefixes of a tag that open an entity, and that close one, in BIO, BILOU and IOBES."""
PREFIXES = FIRST | LAST | {"I"}
NAME = "words"


class Entity(NamedTuple):
    """Words in a row that are one name.

    Args:
        kind: what it names, as "PER" in "B-PER".
        first: number of its first word.
        last: number of its last word.
    """

    kind: str
    first: int
    last: int


def entities(tags: Sequence[str]) -> set[Entity]:
    """Return the entities of a sentence, as seqeval and the script of CoNLL (conlleval) read tags.

    B, S and U open an entity; so do I, E and L where none of the same kind is open. L, E, S and U close it, and so does a tag that opens
    another.

    Args:
        tags: "O", or one of the prefixes B, I, L, E, U and S, a hyphen, and a kind.
    """
    return set(_read(tags))


def _read(tags: Sequence[str]) -> Iterator[Entity]:
    opened: tuple[str, int] | None = None
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, kind = tag.partition("-")
        begins = tag != OUTSIDE and (prefix in FIRST or opened is None or opened[0] != kind)
        if opened is not None and (begins or tag == OUTSIDE):
            yield Entity(opened[0], opened[1], place - 1)
            opened = None
        if begins:
            opened = kind, place
        if opened is not None and prefix in LAST:
            yield Entity(opened[0], opened[1], place)
            opened = None


def kinds_of(classes: Sequence[str]) -> list[str]:
    """Return what the entities of tags name; nothing where the tags are no such, as parts of speech."""
    parts = [name.partition("-") for name in classes if name != OUTSIDE]
    if not all(prefix in PREFIXES and hyphen and kind for prefix, hyphen, kind in parts):
        return []
    return list(dict.fromkeys(kind for _, _, kind in parts))


class WordScores(ClassScores):
    """Loss, accuracy and macro F1 over all tagged words, and their number; precision, recall and F1 of entities where tags make such.

    An entity is right where its kind and both ends are. ``entity_f1`` is over all entities (micro), ``entity_macro_f1`` the mean over the
    kinds of which there is one, told or true.

    Args:
        classes: the tags, in the order of their numbers.
    """

    entity_counts: Tensor

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__({NAME: len(classes)}, named=False)
        self.classes, self.kinds = list(classes), kinds_of(classes)
        self.add_state("entity_counts", torch.zeros(3, len(self.kinds), dtype=torch.int64), dist_reduce_fx="sum")

    def update_entities(self, guesses: Sequence[int], truths: Sequence[int]) -> None:
        """Add one sentence: a class for each of its words."""
        told, true = (entities([self.classes[number] for number in numbers]) for numbers in (guesses, truths))
        rows = [[sum(entity.kind == kind for entity in found) for kind in self.kinds] for found in (told, true, told & true)]
        self.entity_counts = self.entity_counts + self.entity_counts.new_tensor(rows)

    def compute(self) -> dict[str, Tensor]:
        """Return loss, accuracy, macro_f1 and words, nothing for no words; and the scores of entities, where there was one, told or true.

        These are entity_f1, entity_precision, entity_recall, entity_macro_f1 and entities, the number of true ones.
        """
        scores = {{"samples": "words"}.get(name, name): value for name, value in super().compute().items()}
        told, true, right = self.entity_counts.double()
        if not bool((told + true).any()):
            return scores
        of_kinds = (2 * right / (told + true).clamp(min=1))[(told + true) > 0]
        scores["entity_f1"] = (2 * right.sum() / (told + true).sum()).float()
        scores["entity_precision"] = (right.sum() / told.sum().clamp(min=1)).float()
        scores["entity_recall"] = (right.sum() / true.sum().clamp(min=1)).float()
        scores["entity_macro_f1"] = of_kinds.mean().float()
        scores["entities"] = true.sum().float()
        return scores
