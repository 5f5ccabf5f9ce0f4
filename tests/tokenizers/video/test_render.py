"""Strips of clips: what is hidden, what was predicted, and where."""

import pytest
import torch

from multimodal.batch import Items
from multimodal.objectives import TokenValues
from multimodal.tokenizers.video import ClipRenderer, TubeletEmbed


def clip_of(channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (4, channels, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(values: torch.Tensor, masked: torch.Tensor, changed: float = 0.0, **settings) -> dict[str, torch.Tensor]:
    embed = TubeletEmbed(8, 2, 4, channels=values.shape[1], mean=(0.5,), std=(0.5,), position=None)
    tokens = embed.tokens(values[None])
    target = TokenValues(channels=values.shape[1], eps_to="deviation")
    items = Items(values[None], torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    truth = target(items, tokens)
    guesses = torch.where(masked[:, None], truth + changed, truth)
    return dict(ClipRenderer(2, 4, min_size=8, **settings).render(target, values, truth, guesses, masked))


def strip(values: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(values.expand(-1, 3, -1, -1)), 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_show_frames_side_by_side(channels):
    values, masked = clip_of(channels), torch.zeros(12, dtype=torch.bool)
    masked[[1, 7]] = True  # the second cube of the first row, at both times
    pictures = drawn(values, masked)
    assert list(pictures) == ["clip", "masked", "predicted", "completed"]
    assert all(picture.shape == (3, 8, 48) and picture.dtype == torch.uint8 for picture in pictures.values())
    assert torch.equal(pictures["clip"], strip(values))
    hidden = values.clone()
    hidden[:, :, :4, 4:8] = 128
    assert torch.equal(pictures["masked"], strip(hidden))
    assert (pictures["completed"].int() - strip(values).int()).abs().max() <= 1  # the truth was predicted
    alone = torch.full_like(values, 128)
    alone[:, :, :4, 4:8] = values[:, :, :4, 4:8]
    assert (pictures["predicted"].int() - strip(alone).int()).abs().max() <= 1


def test_predictions_show():
    values, masked = clip_of(), torch.zeros(12, dtype=torch.bool)
    masked[0] = True
    made = drawn(values, masked, changed=0.5)["completed"].view(3, 8, 4, 12).int() - drawn(values, masked)["clip"].view(3, 8, 4, 12).int()
    cube = torch.zeros(3, 8, 4, 12, dtype=torch.bool)
    cube[:, :4, :2, :4] = True
    assert (made[~cube] == 0).all() and made[cube].float().mean() > 20


def test_few_frames_at_equal_distances_and_enlarged():
    values = clip_of()
    pictures = drawn(values, torch.zeros(12, dtype=torch.bool), num_frames=2)
    assert torch.equal(pictures["clip"], strip(values[[0, 2]]))
    large = ClipRenderer(2, 4, num_frames=1, min_size=20)
    picture = large.render(TokenValues(), values, torch.zeros(12, 96), torch.zeros(12, 96), torch.zeros(12, dtype=torch.bool))["clip"]
    assert torch.equal(picture, values[0].repeat_interleave(3, 1).repeat_interleave(3, 2))


def test_cubes_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"cubes of 2 frames of 8 x 8 pixels are not those of a clip of \(4, 3, 8, 12\) with 12 cubes"):
        ClipRenderer(2, 8).render(TokenValues(), clip_of(), torch.zeros(12, 96), torch.zeros(12, 96), torch.zeros(12, dtype=torch.bool))
    with pytest.raises(ValueError, match="must be at least 1, got tubelet_size 0"):
        ClipRenderer(0)
