"""Masks as colours and files."""

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.tokenizers.image import MaskReader
from multimodal.training.mask_pictures import coloured, enlarged, palette, write_mask


def test_colours_are_those_of_pascal_voc():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {number: tuple(palette()[number].tolist()) for number in known} == known
    assert len(palette().unique(dim=0)) == 256


def test_pixels_have_the_colours_of_their_classes():
    picture = coloured(torch.tensor([[0, 1], [-1, 2]], dtype=torch.int16))
    assert picture[:, 0, 1].tolist() == [128, 0, 0] and picture[:, 1, 0].tolist() == [224, 224, 192]


def test_small_pictures_are_enlarged_by_a_whole_factor():
    picture = enlarged(torch.tensor([[[1, 2]]], dtype=torch.uint8), min_size=3)
    assert picture.tolist() == [[[1, 1, 1, 2, 2, 2]] * 3] * 3


@pytest.mark.parametrize(("num_classes", "mode"), [(5, "P"), (255, "P"), (256, "I;16"), (2000, "I;16")])
def test_written_masks_are_read_again(tmp_path, num_classes, mode):
    classes = torch.randint(num_classes, (6, 9), generator=torch.Generator().manual_seed(0))
    path = tmp_path / "deep" / "mask.png"
    write_mask(classes, num_classes, path)
    assert Image.open(path).mode == mode
    assert torch.equal(MaskReader(ignore=None)(path.read_bytes()).long(), classes)
    if mode == "P":
        colours = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(colours, coloured(classes))
