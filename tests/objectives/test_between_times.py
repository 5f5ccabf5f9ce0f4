"""Differences to the neighbours in time, by hand."""

import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.objectives import BetweenTimes
from multimodal.protocols import Tokens
from multimodal.tokenizers.video import TubeletEmbed

EMBED = TubeletEmbed(8, 1, 4, channels=1, mean=(0.0,), std=(1.0,), position=None)


def made(clips: torch.Tensor) -> torch.Tensor:
    items = collate([Sample(str(i), {"film": Item(clip)}) for i, clip in enumerate(clips)]).items["film"]
    return BetweenTimes()(items, EMBED.tokens(items.values)).view(len(clips), clips.shape[1], -1)


def test_a_steady_change_leaves_nothing_between():
    clip = (10 * torch.arange(5)[:, None, None, None] + torch.arange(8)[None, None, None]).expand(5, 1, 8, 8).to(torch.uint8)
    differences = made(clip[None])[0]
    assert differences[1:-1].abs().max() < 1e-6
    torch.testing.assert_close(differences[0], torch.full_like(differences[0], -10 / 255))
    torch.testing.assert_close(differences[4], torch.full_like(differences[4], 10 / 255))


def test_differences_are_those_of_the_same_place():
    clips = torch.randint(0, 256, (2, 4, 1, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cubes = EMBED.tokens(clips).inputs.view(2, 4, 6, 16).double() / 255
    found = made(clips).view(2, 4, 6, 16)
    for time in (1, 2):
        expected = cubes[:, time] - (cubes[:, time - 1] + cubes[:, time + 1]) / 2
        torch.testing.assert_close(found[:, time].double(), expected, atol=1e-6, rtol=0)


def test_it_asks_for_as_many_values_as_a_token_has():
    assert BetweenTimes().sizes(EMBED) == (16,)


@pytest.mark.parametrize("grid", [None, (1, 4), (4,)])
def test_what_has_no_times_is_refused(grid):
    tokens = Tokens(torch.zeros(4, 3), torch.tensor([4]), torch.zeros(4, 2), grid=grid)
    items = collate([Sample("a", {"film": Item(torch.zeros(1))})]).items["film"]
    with pytest.raises(ValueError, match="need a grid of at least 2 times"):
        BetweenTimes()(items, tokens)
