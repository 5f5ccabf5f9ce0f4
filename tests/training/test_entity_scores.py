"""Entities of tags as seqeval reads them, and their scores."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.training.entity_scores import Entity, WordScores, entities, kinds_of

CLASSES = ("O", "B-X", "I-X", "B-Y", "I-Y")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-X I-X O B-Y", "X01 Y33"),
        ("B-X B-X I-X", "X00 X12"),
        ("I-X I-X O I-X", "X01 X33"),  # entities that no B opens
        ("B-X I-Y I-Y", "X00 Y12"),  # another kind begins
        ("B-X I-X L-X U-X O U-Y", "X02 X33 Y55"),  # BILOU
        ("B-X E-X I-X S-Y S-Y", "X01 X22 Y33 Y44"),  # IOBES; what follows an end opens
        ("O E-X I-X", "X11 X22"),
        ("O O", ""),
    ],
)
def test_entities_are_those_of_seqeval(tags, found):
    assert entities(tags.split()) == {Entity(kind, int(first), int(last)) for kind, first, last in map(tuple, found.split())}


spans = st.lists(st.tuples(st.sampled_from("XY"), st.integers(1, 3), st.integers(0, 2)), max_size=6)


def written(parts):
    """Return the tags of names of so many words, each with words outside after it."""
    return [tag for kind, words, outside in parts for tag in [f"B-{kind}", *[f"I-{kind}"] * (words - 1), *["O"] * outside]]


@given(spans)
def test_names_are_read_as_they_were_written(parts):
    line = "".join({"O": ".", "B": tag[-1], "I": tag[-1].lower()}[tag[0]] for tag in written(parts))
    expected = {Entity(x.group()[0], x.start(), x.end() - 1) for x in re.finditer("Xx*|Yy*", line)}
    assert entities(written(parts)) == expected


@given(st.lists(st.tuples(spans, st.integers(0, 2**30)), min_size=1, max_size=5))
def test_scores_are_counted_over_all_sentences(sentences):
    scores, true, told, right = WordScores(CLASSES), [], [], []
    for number, (parts, noise) in enumerate(sentences):
        tags = written(parts)
        guess = [CLASSES[(noise >> place) % 5] if (noise >> place) % 3 == 0 else tag for place, tag in enumerate(tags)]
        numbers = [[CLASSES.index(tag) for tag in row] for row in (guess, tags)]
        scores.update("words", torch.zeros(()), *(torch.tensor(row, dtype=torch.int64) for row in numbers))
        scores.update_entities(*numbers)
        true += [(number, *entity) for entity in entities(tags)]
        told += [(number, *entity) for entity in entities(guess)]
        right += [(number, *entity) for entity in entities(tags) & entities(guess)]
    found = scores.compute()
    if not true and not told:
        assert "entity_f1" not in found
        return
    assert found["entities"] == len(true)
    assert found["entity_precision"] == pytest.approx(len(right) / max(1, len(told)))
    assert found["entity_recall"] == pytest.approx(len(right) / max(1, len(true)))
    assert found["entity_f1"] == pytest.approx(2 * len(right) / (len(told) + len(true)))
    kinds = {entity[1] for entity in [*true, *told]}
    of_kinds = [2 * sum(e[1] == k for e in right) / sum(e[1] == k for e in [*true, *told]) for k in kinds]
    assert found["entity_macro_f1"] == pytest.approx(sum(of_kinds) / len(of_kinds))


def test_parts_of_speech_make_no_entities():
    assert kinds_of(["NOUN", "VERB", "O"]) == [] == kinds_of(["O", "B-X", "B-"])
    assert kinds_of(CLASSES) == ["X", "Y"]
    scores = WordScores(["NOUN", "VERB"])
    scores.update("words", torch.tensor(3.0), torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 1, 0]))
    found = {name: round(value.item(), 4) for name, value in scores.compute().items()}
    assert found == {"loss": 0.75, "accuracy": 0.75, "macro_f1": round((2 / 3 + 0.8) / 2, 4), "words": 4.0}
