"""The measurement of how many codes are used: its teacher, and a run of two steps."""

from functools import partial

import pytest
import torch

from benchmarks.codebook_usage.run import crops, measure
from benchmarks.codebook_usage.teacher import GradientTeacher
from multimodal.tokenizers.quantizers import Codebook


def test_the_teacher_says_colours_and_directions():
    flat = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    features = GradientTeacher(8)(flat)
    assert features.shape == (4, GradientTeacher().dim) == (4, 46)
    assert torch.equal(features[:, :3], torch.ones(4, 3)) and torch.equal(features[:, 35:38], torch.ones(4, 3))
    assert not features[:, 3:35].any() and not features[:, 38:].any()
    edge = flat.clone()
    edge[:, :, :, :4] = 0  # brighter to the right, in the middle of the left patches
    strong = GradientTeacher(8)(edge)[:, 3:35].unflatten(1, (8, 2, 2))
    assert strong[0].sum() == strong[0, 4].sum() > 0 and not strong[1].any()
    turned = GradientTeacher(8)(edge.transpose(2, 3))[:, 3:35].unflatten(1, (8, 2, 2))
    assert turned[0].sum() == turned[0, 6].sum() > 0


@pytest.mark.slow
def test_a_short_run_gives_a_row():
    images = torch.randint(256, (70, 3, 96, 96), dtype=torch.uint8)
    row = measure(images, images[:10], GradientTeacher(), partial(Codebook, num_codes=64), steps=2)
    assert 0 < row.held_out["usage"] <= row.train["usage"] <= 1 and row.distillation > 0 and row.seconds > 0
    assert row.train["dead_codes"] == 64 - 64 * row.train["usage"]


def test_crops_are_read_in_order(tmp_path):
    from PIL import Image

    (tmp_path / "files/train/a").mkdir(parents=True)
    for value in (7, 9):
        Image.new("RGB", (96, 96), (value, 0, 1)).save(tmp_path / f"files/train/a/{value:03d}.png")
    read = crops(tmp_path, "train")
    assert read.shape == (2, 3, 96, 96) and read[:, 0, 0, 0].tolist() == [7, 9] and read.is_contiguous()
