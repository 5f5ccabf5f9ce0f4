"""RandAugment and random erasing: timm's results from the same draws, and nothing but the generator decides."""

import math
import random

import numpy as np
import pytest
import torch
from timm.data.auto_augment import NAME_TO_OP, rand_augment_transform
from timm.data.random_erasing import RandomErasing as TimmErasing

from multimodal.tokenizers.image import RandAugment, RandomErasing
from multimodal.tokenizers.image.augment import drawn_from
from multimodal.tokenizers.image.transform import from_picture, to_picture

DIGITS = ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(channels: int = 3, side: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (channels, side, side), generator=draw(seed), dtype=torch.uint8)


def states() -> list[bytes]:
    return [repr(random.getstate()).encode(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()]


def test_global_generators_follow_from_the_generator_and_are_given_back():
    drawn = []
    for seed in (1, 1, 2):
        before = states()
        with drawn_from(draw(seed)):
            drawn.append((random.random(), np.random.rand(), torch.rand(()).item()))
        assert states() == before
    assert drawn[0] == drawn[1]
    assert all(first != second for first, second in zip(drawn[0], drawn[2], strict=True))


def test_global_generators_are_given_back_after_an_error():
    before = states()
    with pytest.raises(ValueError, match="three"), drawn_from(draw(0)):
        raise ValueError("three")
    assert states() == before


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operations", [None, DIGITS])
def test_rand_augment_is_timms_from_the_same_draws(channels, operations):
    colour = 51 if channels == 1 else (51, 51, 51)
    settings = {"translate_const": 10, "img_mean": colour, "interpolation": 3}  # 0.45 of 24 pixels, bicubic
    timm = rand_augment_transform("rand-m9-mstd0.5-inc1", settings, transforms=operations)
    ours, changed = RandAugment(operations=operations, fill=(0.2,)), 0
    for seed in range(40):  # none of these draws posterizes to no bits
        view = noise(channels, seed=seed)
        with drawn_from(draw(seed)):
            expected = from_picture(timm(to_picture(view)))
        assert torch.equal(ours(view, draw(seed)), expected)
        changed += not torch.equal(expected, view)
    assert changed > 25  # two operations, each with probability one half


@pytest.mark.parametrize("name", sorted(NAME_TO_OP))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [0, 9, 10])
def test_every_operation_runs_on_grey_and_on_colour(name, channels, strength):
    view = noise(channels)
    out = RandAugment(f"rand-m{strength}-p1", operations=[name])(view, draw(0))
    assert out.shape == view.shape and out.dtype == torch.uint8
    if name == "Invert":
        assert torch.equal(out, view)  # twice
    elif name.startswith("Translate"):
        assert torch.equal(out, view) == (strength == 0)


def test_geometric_operations_invert_no_colours_and_fill_with_the_background():
    dark = torch.zeros(1, 28, 28, dtype=torch.uint8)
    dark[:, 10:18, 12:16] = 200
    augment = RandAugment("rand-m9-mstd0.5-inc1", DIGITS, fill=(0.0,))
    for seed in range(60):
        out = augment(dark, draw(seed))
        assert (out > 20).float().mean() < 0.1 and (out > 20).any()


@pytest.mark.parametrize(("name", "strength"), [("PosterizeIncreasing", 10), ("Posterize", 0)])
def test_the_strongest_posterize_keeps_one_bit(name, strength):
    assert RandAugment(f"rand-m{strength}-p1-n1", [name])(noise(), draw(0)).unique().tolist() == [0, 128]


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_comes_with_its_probability_and_area(probability):
    view, erase = torch.full((3, 32, 32), 7, dtype=torch.uint8), RandomErasing(probability, area=(0.1, 0.2))
    shares = [float((erase(view, draw(seed)) != 7).any(0).float().mean()) for seed in range(400)]
    erased = [share for share in shares if share > 0]
    assert len(erased) / 400 == pytest.approx(probability, abs=0.07 if 0 < probability < 1 else 0)
    assert all(0.07 < share < 0.23 for share in erased)


def test_erasing_is_timms_from_the_same_draws():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    timm, ours = TimmErasing(1.0, mode="pixel", device="cpu"), RandomErasing(1.0, mean=mean, std=std)
    shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    for seed in range(20):
        view = noise(seed=seed)
        with drawn_from(draw(seed)):
            expected = timm((view / 255 - shift) / scale) * scale + shift
        assert (ours(view, draw(seed)) / 255 - expected.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_noise_has_the_moments_asked_for():
    erase = RandomErasing(1.0, area=(0.9, 0.9), ratio=1.0, mean=(0.6,), std=(0.1,))
    out = erase(torch.zeros(1, 100, 100, dtype=torch.uint8), draw(0))
    values = out[out > 0].float() / 255
    assert len(values) > 8000
    assert float(values.mean()) == pytest.approx(0.6, abs=0.005) and float(values.std()) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"policy": "augmix-m3"}, "policy must be 'rand' and then parts"),
        ({"policy": "rand-mstdx"}, "policy must be"),
        ({"policy": "rand-m9-q3"}, "got 'rand-m9-q3'"),
        ({"operations": ["Rotate", "Spin"]}, r"operations must be some of AutoContrast, .*; got \['Spin'\]"),
        ({"operations": []}, "got none"),
        ({"fill": (1.5,)}, r"fill must be numbers in \[0, 1\], got \(1.5,\)"),
        ({"fill": ()}, "fill must be"),
    ],
)
def test_settings_of_rand_augment_are_checked(settings, expected):
    with pytest.raises(ValueError, match=expected):
        RandAugment(**settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"probability": 1.1}, r"probability must be in \[0, 1\], got 1.1"),
        ({"area": (0.5, 0.2)}, "area must be an ascending range"),
        ({"ratio": 0.0}, r"ratio must be in \(0, 1\], got 0.0"),
        ({"mean": (2.0,)}, "mean must be numbers in"),
        ({"std": (0.0,)}, "std must be numbers above 0"),
    ],
)
def test_settings_of_random_erasing_are_checked(settings, expected):
    with pytest.raises(ValueError, match=expected):
        RandomErasing(**settings)


def test_numbers_for_other_channels_are_refused():
    with pytest.raises(ValueError, match="fill must be one number, or one for each of 1 channels; got 3"):
        RandAugment(fill=(0.1, 0.2, 0.3))(noise(1), draw(0))
    with pytest.raises(ValueError, match="std must be one number, or one for each of 3 channels; got 2"):
        RandomErasing(std=(0.1, 0.2))(noise(3), draw(0))


def test_shifts_in_pixels_are_limited_by_the_side_of_the_view():
    view = torch.zeros(1, 40, 40, dtype=torch.uint8)
    view[:, :, 20] = 255
    columns = {int(RandAugment("rand-m10-p1-n1", ["TranslateX"])(view, draw(seed))[0, 20].argmax()) for seed in range(20)}
    assert columns == {20 - math.floor(0.45 * 40), 20 + math.floor(0.45 * 40)}
