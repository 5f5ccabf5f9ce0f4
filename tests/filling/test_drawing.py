"""Ids are drawn from what is allowed, in the shares that logits say."""

import pytest
import torch

from multimodal.filling.drawing import draw

ALL = torch.ones(1, 4, dtype=torch.bool)
CHANCES = torch.tensor([0.1, 0.4, 0.3, 0.2])
EVEN = (torch.arange(1000) + 0.5) / 1000


def shares(allowed: torch.Tensor = ALL, **settings) -> list[float]:
    found = draw(CHANCES.log().expand(1000, 4), allowed, EVEN, **settings).ids
    return (torch.bincount(found, minlength=4) / 1000).tolist()


def test_ids_are_drawn_in_their_shares():
    assert shares() == pytest.approx(CHANCES.tolist(), abs=0.002)


def test_a_low_temperature_sharpens_and_zero_takes_the_likeliest():
    squares = CHANCES**2 / (CHANCES**2).sum()
    assert shares(temperature=0.5) == pytest.approx(squares.tolist(), abs=0.002)
    assert shares(temperature=0) == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 9}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_p": 0.3}, [0, 1, 0, 0]),
        ({"top_p": 0.5}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 3 / 7, 0]),
    ],
)
def test_only_the_likeliest(settings, expected):
    assert shares(**settings) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.9}, {"temperature": 100.0}])
def test_what_is_not_allowed_is_never_drawn(settings):
    allowed = torch.tensor([[True, False, False, True]])
    found = shares(allowed, **settings)
    assert found[1] == found[2] == 0 and sum(found) == pytest.approx(1)


def test_extreme_noise_stays_inside():
    noise = torch.tensor([0.0, 1 - 2.0**-24])
    assert draw(torch.zeros(2, 4), ALL & torch.tensor([False, True, True, False]), noise).ids.tolist() == [1, 2]


def test_confidence_is_of_the_allowed_ids_before_temperature():
    allowed = torch.tensor([[False, True, False, True]])
    drawn = draw(CHANCES.log()[None], allowed, torch.zeros(1), temperature=0.1)
    assert drawn.ids.tolist() == [1] and drawn.confidence.exp().item() == pytest.approx(0.4 / 0.6)
