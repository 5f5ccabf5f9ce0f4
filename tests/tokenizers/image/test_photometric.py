"""Changes of colour: known ranges, grey stays grey, and the generator alone decides."""

import pytest
import torch

from multimodal.tokenizers.image import PhotometricDistortion


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*colour: int) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 2, 3).contiguous()


def test_strength_0_changes_nothing():
    view = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    assert all(torch.equal(PhotometricDistortion(0.0)(view, draw(seed)), view) for seed in range(20))


def test_grey_values_stay_within_the_published_ranges():
    found = [int(PhotometricDistortion()(uniform(100), draw(seed))[0, 0, 0]) for seed in range(1000)]
    assert found.count(100) in range(200, 310)  # neither changes in a quarter of the cases
    assert 34 <= min(found) <= 40 and 175 <= max(found) <= 198  # (100 - 32) / 2 and (100 + 32) * 1.5


def test_grey_pictures_have_no_colours_afterwards():
    found = [PhotometricDistortion()(uniform(100, 100, 100), draw(seed))[:, 0, 0] for seed in range(50)]
    assert all(x.amax() - x.amin() == 0 for x in found) and len({int(x[0]) for x in found}) > 10


def test_hues_turn_by_up_to_a_tenth_of_the_circle():
    found = torch.stack([PhotometricDistortion()(uniform(200, 40, 40), draw(seed))[:, 0, 0] for seed in range(300)])
    red, green, blue = found.float().unbind(1)
    assert (red >= torch.maximum(green, blue)).all()
    angle = torch.rad2deg(torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue))
    assert 25 < angle.max() <= 38 and -38 <= angle.min() < -25  # 36 degrees, and what rounding to bytes adds


def test_equal_draws_make_equal_pictures():
    view = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    first = PhotometricDistortion()(view, draw(3))
    torch.rand(5)
    assert torch.equal(PhotometricDistortion()(view, draw(3)), first)
    assert any(not torch.equal(PhotometricDistortion()(view, draw(seed)), first) for seed in range(5))


def test_strength_is_checked():
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\], got 2"):
        PhotometricDistortion(2.0)
