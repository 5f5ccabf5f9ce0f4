"""From a folder of pictures and masks, through shards, to batches with labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.datamodules.commands import main
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.errors import SampleError
from multimodal.tokenizers.image import MaskReader, SegmentationTransform

PATTERN = r"(?P<key>.+?)\.(?P<field>mask\.png|jpg)"


def write(root, sizes, masked=None):
    for number, (width, height) in enumerate(sizes):
        picture = root / f"{number:02}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (number, 0, 0)).save(picture)
        if masked is None or number in masked:
            Image.fromarray(np.full((height, width), number, dtype=np.uint8)).save(root / f"{number:02}.mask.png")
    assert main(["write", str(root), "--to", f"{root}-shards", "--field-pattern", PATTERN, "--split", "train=0.5,val=0.5"]) == 0
    return f"{root}-shards"


def module(shards, **settings):
    return ShardDataModule(shards, {"picture": SegmentationTransform(size=8, jitter=0.0)}, **({"batch_size": 4} | settings))


def test_pairs_of_files_become_labelled_items(tmp_path):
    data = module(write(tmp_path / "files", [(8, 8)] * 20))
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            items = batch.items["picture"]
            for key, labels in zip(batch.keys, items.labels, strict=True):
                assert set(labels.unique().tolist()) <= {int(key), -1} and (labels == int(key)).any()


def test_pictures_and_masks_may_lie_in_folders_of_their_own(tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            (tmp_path / "there" / kind / split).mkdir(parents=True)
            (tmp_path / "files" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "files" / split / kind).symlink_to(tmp_path / "there" / kind / split)
        for number in range(3):
            Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / f"files/{split}/images/{number}.jpg")
            Image.new("L", (8, 8), number).save(tmp_path / f"files/{split}/annotations/{number}.png")
    patterns = [r"images/(?P<key>.+)\.(?P<field>jpg)", r"annotations/(?P<key>.+)\.(?P<field>png)"]
    options = [word for pattern in patterns for word in ("--field-pattern", pattern)]
    assert main(["write", str(tmp_path / "files"), "--to", str(tmp_path / "shards"), "--split", "folders", *options]) == 0
    transform = SegmentationTransform(size=8, jitter=0.0, masks=MaskReader(fields=["png"], zero_is_ignored=True))
    (batch,) = ShardDataModule(str(tmp_path / "shards"), {"picture": transform}, batch_size=3).val_dataloader()
    items = batch.items["picture"]
    assert (items.values[:, 0] > 190).all()  # the picture, and not its mask
    assert {key: labels.unique().tolist() for key, labels in zip(batch.keys, items.labels, strict=True)} == {"0": [-1], "1": [0], "2": [1]}


def test_pictures_without_a_mask_count_for_nothing(tmp_path):
    data = module(write(tmp_path / "files", [(8, 8)] * 12, masked={0, 5, 7}), train_split="train", val_split="val")
    found = {key: labels for loader in (data.train_dataloader(), data.val_dataloader()) for b in loader for key, labels in
             zip(b.keys, b.items["picture"].labels, strict=True)}  # fmt: skip
    assert len(found) == 12 and {int(key) for key, labels in found.items() if (labels >= 0).any()} == {0, 5, 7}


def test_whole_images_of_unequal_size_come_one_by_one(tmp_path):
    shards = write(tmp_path / "files", [(8 + number, 9) for number in range(12)])
    with pytest.raises(ValueError, match="items of modality 'picture' differ in shape"):
        list(module(shards).val_dataloader())
    shapes = {batch.items["picture"].labels.shape[1:] for batch in module(shards, eval_batch_size=1).val_dataloader()}
    assert len(shapes) > 3 and all(shape[0] == 9 for shape in shapes)
    assert all(batch.items["picture"].labels.shape[1:] == torch.Size((8, 8)) for batch in module(shards).train_dataloader())


def test_a_mask_that_does_not_fit_names_its_sample(tmp_path):
    folder = tmp_path / "files"
    shards = write(folder, [(8, 8)] * 12)
    assert len(list(module(shards).val_dataloader()))
    for path in folder.glob("*.mask.png"):
        Image.new("L", (5, 4)).save(path)
    assert main(["write", str(folder), "--to", f"{folder}-wrong", "--field-pattern", PATTERN, "--split", "train=0.5,val=0.5"]) == 0
    with pytest.raises(SampleError, match=r"field 'mask\.png': the mask has 5 x 4 pixels, the image 8 x 8"):
        list(module(f"{folder}-wrong").train_dataloader())
