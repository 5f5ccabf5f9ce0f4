import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.demo.digits import MARKER, made_once, write_digits


def fill(folder: Path) -> dict[str, dict[str, int]]:
    (folder / "train").mkdir()
    (folder / "train" / "file").write_text("new")
    return {"train": {"a": 1}}


def refuse(folder: Path) -> dict[str, dict[str, int]]:
    raise AssertionError("must not be redone")


def test_a_complete_folder_is_not_redone(tmp_path: Path) -> None:
    counts = made_once(tmp_path / "new", {"version": 1}, fill)
    assert made_once(tmp_path / "new", {"version": 1}, refuse) == counts == {"train": {"a": 1}}
    assert not (tmp_path / "new.partial").exists()


def test_other_settings_replace_the_folder(tmp_path: Path) -> None:
    made_once(tmp_path / "new", {"version": 1}, fill)
    (tmp_path / "new" / "stale").write_text("old")
    made_once(tmp_path / "new", {"version": 2}, fill)
    assert {x.name for x in (tmp_path / "new").iterdir()} == {"train", MARKER}


def test_a_failure_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        made_once(tmp_path / "new", {"version": 1}, refuse)
    assert not (tmp_path / "new").exists()
    assert made_once(tmp_path / "new", {"version": 1}, fill) == {"train": {"a": 1}}


def test_a_folder_of_others_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="was not made by this demo"):
        made_once(tmp_path, {"version": 1}, fill)
    assert (tmp_path / "diary.txt").read_text() == "mine"


def test_digits_are_balanced_and_splits_share_none(tmp_path: Path) -> None:
    counts = write_digits(tmp_path / "digits")
    for split, per_class in (("train", 360), ("val", 40), ("test", 100)):
        assert counts[split] == {str(digit): per_class for digit in range(10)}
        assert len(list((tmp_path / "digits" / split).glob("*/*.png"))) == 10 * per_class
    names = [path.name for path in (tmp_path / "digits").glob("*/*/*.png")]
    assert len(set(names)) == 5000
    image = np.asarray(Image.open(tmp_path / "digits" / "train" / "0" / min(x.name for x in (tmp_path / "digits/train/0").iterdir())))
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() > 200
    assert json.loads((tmp_path / "digits" / MARKER).read_text())["counts"] == counts
