"""Views for classifiers: functions of the generator alone; evaluation as timm does it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval

from multimodal.fingerprint import transform_fingerprint
from multimodal.tokenizers.image import ClassificationTransform, ImageTransform, RandAugment, RandomErasing
from multimodal.tokenizers.image.transform import to_picture


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[:channels].contiguous()


def test_a_view_is_a_function_of_the_generator():
    transform = ClassificationTransform(size=32, jitter=0.2, augment=RandAugment(), erase=RandomErasing(0.5))
    image = smooth(60, 50)
    views = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(views))
        np.random.seed(len(views))
        views.append(transform(image, draw(seed), train=True))
    assert views[0].values.shape == (3, 32, 32) and views[0].values.dtype == torch.uint8 and views[0].tokenizer_values is None
    assert torch.equal(views[0].values, views[1].values) and not torch.equal(views[0].values, views[2].values)


def test_without_augmentation_a_view_is_that_of_pretraining():
    image = smooth(60, 50)
    for seed in range(5):
        plain = ImageTransform(size=32, jitter=0.4)(image, draw(seed), train=True).values
        assert torch.equal(ClassificationTransform(size=32, jitter=0.4)(image, draw(seed), train=True).values, plain)


def test_augmentation_and_erasing_come_after_the_crop():
    image, augment, erase = smooth(60, 50), RandAugment("rand-m9-p1-n1", ["Invert"]), RandomErasing(1.0, area=(0.2, 0.3))
    plain = ClassificationTransform(size=32)(image, draw(3), train=True).values
    inverted = ClassificationTransform(size=32, augment=augment)(image, draw(3), train=True).values
    assert torch.equal(inverted, 255 - plain)
    erased = ClassificationTransform(size=32, augment=augment, erase=erase)(image, draw(3), train=True).values
    assert 0.1 < float((erased == inverted).all(0).float().mean()) < 0.9


def views_of_timm_and_ours(image: torch.Tensor, size: int, share: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    pct = share or (224 / 256 if size < 384 else 1.0)
    timm = transforms_imagenet_eval(size, crop_pct=pct, interpolation="bicubic", normalize=False)(to_picture(image))
    ours = ClassificationTransform(size=size, evaluation_crop=share)(image, draw(0), train=False).values
    assert ours.shape == timm.shape == (3, size, size)
    return timm.float(), ours.float()


@pytest.mark.parametrize(("size", "share"), [(224, None), (32, None), (384, None), (48, 0.9)])
def test_evaluation_is_that_of_timm(size, share):
    timm, ours = views_of_timm_and_ours(smooth(300, 300), size, share)
    assert (ours - timm).abs().mean() < 0.2 and (ours - timm).abs().max() <= 2


@pytest.mark.parametrize("size", [224, 32, 384])
@pytest.mark.parametrize(("height", "width"), [(300, 420), (420, 300), (511, 270)])
def test_evaluation_of_other_shapes_is_that_of_timm_to_a_pixel(size, height, width):
    rows, columns = torch.meshgrid(torch.linspace(0, 255, height), torch.linspace(0, 255, width), indexing="ij")
    image = torch.stack([rows, columns, columns]).round().to(torch.uint8)
    timm, ours = views_of_timm_and_ours(image, size, None)
    pixel = (timm[:2, -1, -1] - timm[:2, 0, 0]) / (size - 1)  # grey levels
    assert ((ours - timm)[:2].mean((1, 2)).abs() / pixel).max() < 1


def test_evaluation_draws_nothing_and_changes_no_colours():
    transform = ClassificationTransform(size=30, augment=RandAugment(), erase=RandomErasing(1.0), evaluation_crop=1.0)
    image, generator = smooth(30, 50), draw(0)
    before = generator.get_state()
    assert torch.equal(transform(image, generator, train=False).values, image[:, :, 10:40])
    assert torch.equal(generator.get_state(), before)


def test_the_least_share_of_224_is_cut_from_256_pixels():
    ramp = torch.arange(256, dtype=torch.uint8).expand(1, 256, 256).contiguous()
    values = ClassificationTransform(size=224, channels=1)(ramp, draw(0), train=False).values
    assert values[0, 0].tolist() == list(range(16, 240))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (1, 1)])
def test_extreme_sizes_give_a_picture(channels, shape):
    transform = ClassificationTransform(size=8, channels=channels, augment=RandAugment(), erase=RandomErasing(1.0))
    for train in (True, False):
        values = transform(torch.full((channels, *shape), 9, dtype=torch.uint8), draw(0), train).values
        assert values.shape == (channels, 8, 8)


def test_a_large_photo_is_decoded_with_enough_pixels_for_the_middle():
    file = io.BytesIO()
    Image.new("RGB", (1024, 1024)).save(file, "jpeg")
    narrow = ClassificationTransform(size=128, scale=(1.0, 1.0), ratio=(1.0, 1.0), evaluation_crop=0.25)
    assert narrow.enough == 512  # 128 / 0.25; a crop of the whole needs 128
    assert narrow.decode(file.getvalue()).shape == (3, 512, 512)
    assert ClassificationTransform(size=224).enough == ImageTransform(size=224).enough


def test_the_fingerprint_follows_every_setting():
    settings = [
        {},
        {"evaluation_crop": 1.0},
        {"augment": RandAugment()},
        {"augment": RandAugment("rand-m5")},
        {"augment": RandAugment(operations=["Rotate"])},
        {"erase": RandomErasing()},
        {"erase": RandomErasing(0.5)},
        {"flip": 0.0},
    ]
    prints = [transform_fingerprint(ClassificationTransform(**each)) for each in settings]
    assert len(set(prints)) == len(prints)
    assert prints[2] == transform_fingerprint(ClassificationTransform(augment=RandAugment()))
    used = ClassificationTransform(augment=RandAugment())
    used(smooth(30, 30), draw(0), train=True)
    assert transform_fingerprint(used) == prints[2]


def test_example_and_description():
    transform = ClassificationTransform(size=16, channels=1)
    assert transform.example().values.shape == (1, 16, 16)
    file = io.BytesIO()
    Image.new("L", (9, 7), 51).save(file, "png")
    described = transform.describe(file.getvalue())
    assert (described["width"], described["height"]) == (9, 7) and described["pixels"].sums == pytest.approx((63 * 0.2,))


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=r"evaluation_crop must be in \(0, 1\]"):
        ClassificationTransform(evaluation_crop=share)
