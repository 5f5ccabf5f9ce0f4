"""Views for segmentation: image and mask are cut out of one box, and what is missing counts for nothing."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multimodal.tokenizers.from_fields import FromFields
from multimodal.tokenizers.image import MaskReader, SegmentationTransform

PLAIN = {"flip": 0.0, "jitter": 0.0}


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def position_pair(width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Red grows from left to right, green from top to bottom; the class is the number of the tile of 8 x 8 in a grid."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([x / width * 255, y / height * 255, np.zeros_like(x)]).astype(np.uint8)
    labels = (x * 8 // width) + 8 * (y * 8 // height)
    return torch.from_numpy(image), torch.from_numpy(labels.astype(np.int16))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(40, 120), st.integers(40, 120), st.sampled_from([0.0, 1.0]))
def test_image_and_mask_show_the_same_box(seed, width, height, flip):
    image, labels = position_pair(width, height)
    item = SegmentationTransform(size=32, scale=(0.5, 2.0), flip=flip, jitter=0.0).labelled(image, labels, draw(seed), True)
    assert item.values.shape == (3, 32, 32) and item.labels.shape == (32, 32) and item.labels.dtype == torch.int16
    there = item.labels >= 0
    column, row = item.labels[there] % 8, item.labels[there] // 8
    # what the pixel's colour says of its place, in tiles, is its class but for the widths of a few pixels
    red, green = item.values[0][there].float() / 255 * 8, item.values[1][there].float() / 255 * 8
    slack = 8 * 4 / min(width, height)
    assert (red - column - 0.5).abs().max() < 0.5 + slack and (green - row - 0.5).abs().max() < 0.5 + slack


def test_what_is_missing_of_the_view_is_grey_and_counts_for_nothing():
    image, labels = position_pair(64, 64)
    item = SegmentationTransform(size=32, scale=(0.5, 0.5), **PLAIN).labelled(image, labels, draw(0), True)
    assert (item.labels[:16, :16] >= 0).all()
    assert (item.labels[16:] == -1).all() and (item.labels[:, 16:] == -1).all()
    assert (item.values[:, 16:] == 128).all() and (item.values[:, :, 16:] == 128).all()


def test_the_factor_spans_its_range():
    image, labels = position_pair(128, 128)
    transform = SegmentationTransform(size=32, shorter_side=64, scale=(0.5, 2.0), max_class_share=1.0, **PLAIN)
    spans = [int(x.labels.max() % 8 - x.labels.min() % 8) for x in (transform.labelled(image, labels, draw(s), True) for s in range(200))]
    assert min(spans) == 2 and max(spans) == 7  # a quarter of the picture to all of it, in tiles of an eighth


def test_a_crop_of_almost_one_class_is_drawn_again():
    labels = torch.zeros(64, 64, dtype=torch.int16)
    labels[:, 32:] = 1
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)

    def num_large(limit: float) -> int:
        """How often, of 100 crops of half the side, one class has three quarters; of those with both classes it has in 16 of 31 places."""
        transform = SegmentationTransform(size=32, shorter_side=64, scale=(1.0, 1.0), max_class_share=limit, **PLAIN)
        shares = [float((transform.labelled(image, labels, draw(seed), True).labels == 0).float().mean()) for seed in range(100)]
        return sum(max(share, 1 - share) >= 0.75 for share in shares)

    assert num_large(0.75) <= 3 and num_large(1.0) in range(35, 70)


def test_nothing_counts_where_there_is_no_mask():
    image, _ = position_pair(40, 30)
    transform = SegmentationTransform(size=32)
    for train in (True, False):
        item = transform(image, draw(0), train)
        assert (item.labels == -1).all() and item.labels.shape == ((32, 32) if train else (30, 40))


def test_evaluation_shows_the_whole_image_and_keeps_the_size_of_the_mask():
    image, labels = position_pair(90, 60)
    item = SegmentationTransform(size=32, shorter_side=40).labelled(image, labels, draw(0), False)
    assert item.values.shape == (3, 40, 60) and torch.equal(item.labels, labels)
    slim, _ = position_pair(300, 20)
    assert SegmentationTransform(size=40)(slim, draw(0), False).values.shape == (3, 11, 160)  # not longer than 4 times the shorter side


def test_an_image_of_the_right_size_is_not_resampled():
    image, labels = position_pair(32, 32)
    assert torch.equal(SegmentationTransform(size=32).labelled(image, labels, draw(0), False).values, image)


def test_equal_draws_make_equal_views_and_other_draws_others():
    image, labels = position_pair(64, 48)
    transform = SegmentationTransform(size=32)
    first, again, other = (transform.labelled(image, labels, draw(seed), True) for seed in (1, 1, 2))
    assert torch.equal(first.values, again.values) and torch.equal(first.labels, again.labels)
    assert not torch.equal(first.values, other.values)


def test_a_mask_of_another_size_is_refused():
    image, labels = position_pair(40, 30)
    with pytest.raises(ValueError, match="the mask has 30 x 40 pixels, the image 40 x 30"):
        SegmentationTransform(size=16).labelled(image, labels.T, draw(0), True)


def test_files_are_read_by_their_fields():
    buffer = io.BytesIO()
    Image.fromarray(np.array([[3, 0], [255, 1]], dtype=np.uint8)).save(buffer, "png")
    transform = SegmentationTransform(size=2, masks=MaskReader(fields=["seg.png"], zero_is_ignored=True))
    assert transform.label_extensions == ("seg.png",) and transform.extensions == SegmentationTransform.extensions
    assert SegmentationTransform(masks=MaskReader(fields=["png"])).extensions == SegmentationTransform.extensions[1:]
    assert transform.decode_labels(buffer.getvalue()).tolist() == [[2, -1], [-1, 0]]
    assert transform.decode(buffer.getvalue()).shape == (3, 2, 2)


def test_a_wrapper_that_would_lose_the_mask_refuses():
    with pytest.raises(ValueError, match="SegmentationTransform reads labels from a field of its own"):
        FromFields(["left.png"], SegmentationTransform())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 0}, "size and shorter_side must be at least 1"),
        ({"shorter_side": 0}, "size and shorter_side"),
        ({"scale": (2.0, 0.5)}, "scale must be an ascending range"),
        ({"max_class_share": 0.0}, r"max_class_share must be in \(0, 1\]"),
        ({"flip": 1.5}, "flip must be a probability"),
        ({"jitter": 2.0}, "strength must be in"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        SegmentationTransform(**setting)
