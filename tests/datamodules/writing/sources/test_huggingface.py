import io
import json

import numpy as np
import pytest
import soundfile
import webdataset
from PIL import Image as Picture

from multimodal.datamodules.commands import main
from multimodal.datamodules.writing.sources import Columns, FileError, recognise, scan_huggingface

datasets = pytest.importorskip("datasets")


def png(number):
    file = io.BytesIO()
    Picture.new("RGB", (4, 4), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def wav(number):
    file = io.BytesIO()
    soundfile.write(file, np.full(80, number / 100), 8000, format="WAV")
    return file.getvalue()


def make(count, **more):
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "sound": datasets.Audio(sampling_rate=8000),
            "species": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.Value("string"),
            "year": datasets.Value("int64"),
        }
    )
    rows = {
        "picture": [{"bytes": png(number), "path": f"{number}.png"} for number in range(count)],
        "sound": [{"bytes": wav(number), "path": None} if number else None for number in range(count)],
        "species": [number % 2 for number in range(count)],
        "caption": [f"caption {number}" for number in range(count)],
        "year": list(range(2000, 2000 + count)),
    }
    return datasets.Dataset.from_dict({**rows, **more}, features=features)


def read(scan):
    return {sample.key: sample.read() for sample, _ in scan.samples}


def test_files_are_taken_as_stored_and_columns_become_metadata(tmp_path):
    make(4).save_to_disk(tmp_path / "saved")
    scan = scan_huggingface(tmp_path / "saved", Columns(texts=["caption"]))
    assert scan.notes == ["columns of files: picture, sound, of texts: caption"]
    found = read(scan)
    assert sorted(found) == [f"{number:08d}" for number in range(4)]
    last = found["00000003"]
    assert last == {
        "picture.png": png(3),
        "sound.wav": wav(3),
        "txt": b"caption 3",
        "json": json.dumps({"label": "dog", "source": "saved:3", "year": 2003}).encode(),
    }
    assert "sound.wav" not in found["00000000"]


def test_one_column_of_files_needs_no_prefix(tmp_path):
    make(2).remove_columns("sound").save_to_disk(tmp_path / "saved")
    found = read(scan_huggingface(tmp_path / "saved", Columns(key="caption")))
    assert {key: sorted(fields) for key, fields in found.items()} == {"caption 0": ["json", "png"], "caption 1": ["json", "png"]}


def test_the_splits_of_a_dict_stay_and_webdataset_reads_the_shards(tmp_path):
    parts = datasets.DatasetDict({"train": make(7), "validation": make(3)})
    parts.save_to_disk(tmp_path / "saved")
    assert recognise([str(tmp_path / "saved")]) == "huggingface"
    arguments = ["write", str(tmp_path / "saved"), "--to", str(tmp_path / "out"), "--samples-per-shard", "4", "--workers"]
    assert main([*arguments, "0"]) == 0
    for split, part in parts.items():
        urls = [str(path) for path in sorted((tmp_path / "out").glob(f"{split}-*.tar"))]
        found = {sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False)}
        assert sorted(found) == [f"{split}/{number:08d}" for number in range(len(part))]
        assert all(found[f"{split}/{number:08d}"]["picture.png"] == png(number) for number in range(len(part)))
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert main([*arguments, "2", "--overwrite"]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first


@pytest.mark.parametrize(
    ("columns", "message"),
    [(Columns(label="kind"), "has no column 'kind'; it has picture, sound"), (Columns(texts=["x"]), "has no column 'x'")],
)
def test_unknown_columns_are_named(tmp_path, columns, message):
    make(2).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=message):
        scan_huggingface(tmp_path / "saved", columns)


def test_texts_alone_must_be_asked_for(tmp_path):
    make(2).select_columns(["caption", "year"]).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"no column of files \(columns: caption, year\); give --text-columns"):
        scan_huggingface(tmp_path / "saved")
    assert read(scan_huggingface(tmp_path / "saved", Columns(texts=["caption"])))["00000001"]["txt"] == b"caption 1"


def test_bytes_of_no_known_kind_name_row_and_column(tmp_path):
    odd = [{"bytes": b"???", "path": None}] * 2
    make(2, sound=odd).save_to_disk(tmp_path / "saved")
    with pytest.raises(FileError, match=r"saved, row 0, column 'sound': neither its name nor its first bytes"):
        read(scan_huggingface(tmp_path / "saved"))


def test_a_folder_of_another_kind_and_damage_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="is no data set that save_to_disk"):
        scan_huggingface(tmp_path)
    make(2).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"x")
    with pytest.raises(ValueError, match="cannot be read"):
        scan_huggingface(tmp_path / "saved")
