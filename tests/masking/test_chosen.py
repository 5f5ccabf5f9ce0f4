"""Groups and ids that are named are hidden, and nothing else."""

from dataclasses import replace

import pytest
import torch

from multimodal.masking import ChosenGroupMasking, FieldMasking, IdRangeMasking
from multimodal.tokens import Tokens

BARS = torch.tensor([0, 0, 1, 2, 2, 3, 4, -1, 0, 1, 1])
IDS = torch.stack([torch.arange(11), torch.arange(11).flip(0)], 1)
TOKENS = Tokens(IDS, torch.tensor([8, 3]), IDS[:, :1], fields=("left", "right"), groups=lambda: {"bar": BARS})
SEED = torch.zeros(2, dtype=torch.int64)


def hidden(masking, tokens: Tokens = TOKENS) -> list[int]:
    return masking(tokens, SEED).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"numbers": [1, 3]}, [2, 5, 9, 10]),
        ({"numbers": [9]}, []),
        ({"first": 2}, [3, 4, 5, 6]),
        ({"first": 1, "last": 2}, [2, 3, 4, 9, 10]),
        ({"every": 2}, [0, 1, 3, 4, 6, 8]),
        ({"first": 1, "every": 2}, [2, 5, 9, 10]),
        ({}, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]),
    ],
)
def test_the_groups_that_are_named_are_hidden(settings, expected):
    assert hidden(ChosenGroupMasking("bar", **settings)) == expected


@pytest.mark.parametrize(("field", "expected"), [("left", [2, 3, 4]), ("right", [6, 7, 8])])
def test_tokens_with_an_id_in_the_range_are_hidden(field, expected):
    assert hidden(IdRangeMasking(field, 2, 4)) == expected


def test_ids_of_one_field():
    assert hidden(IdRangeMasking("token", 9, 10), replace(TOKENS, inputs=torch.arange(11), fields=("token",))) == [9, 10]


@pytest.mark.parametrize("masking", [ChosenGroupMasking("bar", numbers=[0, 1]), IdRangeMasking("left", 0, 9)])
def test_marks_stay(masking):
    marks = torch.zeros(11, dtype=torch.bool)
    marks[[0, 9]] = True
    assert hidden(masking, replace(TOKENS, marks=marks)) == [number for number in hidden(masking) if number not in (0, 9)]


def test_single_fields_of_what_is_named():
    found = FieldMasking(ChosenGroupMasking("bar", numbers=[4]), ["right"])(TOKENS, SEED)
    assert found.nonzero().tolist() == [[6, 1]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChosenGroupMasking("bar", numbers=[]), "at least one"),
        (lambda: ChosenGroupMasking("bar", numbers=[-1]), "from 0 on"),
        (lambda: ChosenGroupMasking("bar", numbers=[1], first=2), "either numbers"),
        (lambda: ChosenGroupMasking("bar", first=4, last=3), "last not before it"),
        (lambda: ChosenGroupMasking("bar", every=0), "every at least 1"),
        (lambda: ChosenGroupMasking("voice")(TOKENS, SEED), "ChosenGroupMasking needs groups called 'voice'.*'bar'"),
        (lambda: IdRangeMasking("left", 4, 3), "ascending from 0"),
        (lambda: IdRangeMasking("pitch", 0, 3)(TOKENS, SEED), "no field is called 'pitch': these tokens have left, right"),
        (lambda: IdRangeMasking("left", 0, 3)(replace(TOKENS, inputs=torch.zeros(11, 16)), SEED), "reads ids"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
