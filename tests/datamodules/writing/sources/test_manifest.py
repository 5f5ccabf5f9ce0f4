import csv
import json

import pyarrow
import pytest
from pyarrow import parquet

from multimodal.datamodules.writing.sources import Columns, FileError, scan_manifest

ROWS = [
    {"photo": "p/1.png", "sound": "s/1.wav", "species": "cat", "year": 1999, "caption": "a cat, asleep", "part": "train"},
    {"photo": "p/2.png", "sound": None, "species": "dog", "year": 2001, "caption": "ein Hund äugt", "part": "val"},
]


@pytest.fixture
def root(tmp_path):
    for name in ("p/1.png", "p/2.png", "s/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def save(root, kind, rows=ROWS):
    path = root / f"list.{kind}"
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(scan):
    return {sample.key: sample.read() for sample, _ in scan.samples}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_paths_become_fields_and_other_columns_metadata(root, kind):
    scan = scan_manifest(save(root, kind), Columns(label="species", texts=["caption"], split="part"))
    assert scan.notes == ["columns of paths: photo, sound; of texts: caption; metadata: year"]
    assert [(sample.key, split) for sample, split in scan.samples] == [("p/1", "train"), ("p/2", "val")]
    found = read(scan)
    year = "1999" if kind in ("csv", "tsv") else 1999
    assert json.loads(found["p/1"].pop("json")) == {"label": "cat", "source": f"list.{kind}:1", "year": year}
    assert found["p/1"] == {"png": b"p/1.png", "txt": b"a cat, asleep", "wav": b"s/1.wav"}
    assert set(found["p/2"]) == {"json", "png", "txt"}
    assert found["p/2"]["txt"].decode() == "ein Hund äugt"


def test_paths_may_be_absolute_or_relative_to_another_root(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    path = save(elsewhere, "csv", [{"a": str(root / "p/1.png")}, {"a": "p/2.png"}])
    scan = scan_manifest(path, root=root)
    assert {key: fields["png"] for key, fields in read(scan).items()} == {"p/1": b"p/1.png", "p/2": b"p/2.png"}


def test_columns_of_one_extension_carry_their_names(root):
    path = save(root, "jsonl", [{"left": "p/1.png", "Right Eye": "p/2.png", "a": "x", "b": "y"}])
    scan = scan_manifest(path, Columns(texts=["a", "b"]))
    assert list(read(scan)["p/1"]) == ["a.txt", "b.txt", "json", "left.png", "right_eye.png"]


@pytest.mark.parametrize(
    ("columns", "keys"),
    [(Columns(), ["p/1", "p/2"]), (Columns(key="species"), ["cat", "dog"]), (Columns(key="row"), ["00000001", "00000002"])],
)
def test_keys_come_from_a_column_the_first_path_or_the_number_of_the_row(root, columns, keys):
    assert sorted(read(scan_manifest(save(root, "csv"), columns))) == keys


def test_a_column_called_key_names_the_samples(root):
    path = save(root, "jsonl", [{"key": "v1.2", "a": "p/1.png", "label": 7}])
    ((sample, _),) = scan_manifest(path).samples
    assert sample.key.startswith("v1_2-")
    assert sample.metadata() == {"key": "v1.2", "label": "7", "source": "list.jsonl:1"}


def test_a_missing_file_is_named_or_listed(root):
    path = save(root, "jsonl", [*ROWS, {"photo": "p/3.png"}, {"species": "cow"}])
    with pytest.raises(FileError, match=r"list\.jsonl, row 3: .*p/3\.png: No such file"):
        scan_manifest(path)
    scan = scan_manifest(path, on_error="skip")
    assert len(scan.samples) == 2
    assert [problem.rpartition("row ")[2][:1] for problem in scan.problems] == ["3", "3", "4"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (ROWS, Columns(label="kind"), "has no column 'kind'; it has photo, sound, species"),
        ([ROWS[0], ROWS[0]], Columns(), r"rows 1 and 2 have the key 'p/1': name a column .* with --key-column row"),
        ([{"a": "x"}], Columns(), r"no column holds paths .*\(columns: a\); give --root, --path-columns or --text-columns"),
        ([{"photo": "p/1.png", "part": "a/b"}], Columns(split="part"), "row 1: the split 'a/b' is not a name"),
        ([{"photo": "p/1.png", "key": ""}], Columns(key="key"), "row 1: the column 'key' of the keys is empty"),
        ([{"photo": "p"}], Columns(paths=["photo"]), "'p' is no path of a file with an extension"),
        ([{"photo": 3}], Columns(texts=["photo"]), "column 'photo' holds 3, not a text"),
    ],
)
def test_errors_name_the_row(root, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        scan_manifest(save(root, "jsonl", rows), columns)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x,y\n1\n", "line 2: 1 cells, the header names 2 columns"),
        ("a.csv", b"x,x\n1,2\n", "must name the columns, each once"),
        ("a.csv", b"", "must name the columns"),
        ("a.csv", b"x\n\xff\n", "cannot be read"),
        ("a.jsonl", b"{\n", "line 1: not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: not a JSON object"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.xls", b"", "a manifest ends in .csv, .tsv"),
        ("a.csv", b"x\n", "has no rows"),
    ],
)
def test_a_damaged_table_is_one_clear_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        scan_manifest(tmp_path / name)


def test_a_column_of_which_a_few_values_name_files_is_metadata(root):
    path = save(root, "jsonl", [{"photo": "p/1.png", "note": "p/2.png"}, {"photo": "p/2.png", "note": "a"}, {"note": "b.c"}])
    with pytest.raises(FileError, match="row 3: no file or text"):
        scan_manifest(path)
    scan = scan_manifest(path, on_error="skip")
    assert scan.notes == ["columns of paths: photo; metadata: note"]
    assert [sample.metadata()["note"] for sample, _ in scan.samples] == ["p/2.png", "a"]


def test_dates_become_text_and_bytes_are_refused(root):
    import datetime

    path = save(root, "parquet", [{"photo": "p/1.png", "day": datetime.date(2020, 2, 3)}])
    assert scan_manifest(path).samples[0][0].metadata()["day"] == "2020-02-03"
    path = save(root, "parquet", [{"photo": "p/1.png", "blob": b"x"}])
    with pytest.raises(ValueError, match=r"row 1, column 'blob': a value of type bytes has no form in JSON"):
        scan_manifest(path)


@pytest.mark.parametrize(
    ("kind", "cells", "separator", "expected"),
    [
        ("csv", ["dog|rain", "|", ""], "|", [["dog", "rain"], [], None]),
        ("csv", ["dog; rain ;", "dog", ";"], ";", [["dog", "rain"], ["dog"], []]),
        ("jsonl", [["dog", "rain"], [], None], "|", [["dog", "rain"], [], None]),
        ("parquet", [["dog", "rain"], [], None], "|", [["dog", "rain"], [], None]),
    ],
)
def test_a_column_of_several_labels(root, kind, cells, separator, expected):
    rows = [{"photo": "p/1.png", "key": str(number), "events": cell} for number, cell in enumerate(cells)]
    scan = scan_manifest(save(root, kind, rows), Columns(labels="events", separator=separator))
    found = [sample.metadata() for sample, _ in scan.samples]
    assert [content.get("labels") for content in found] == expected
    assert not any("events" in content for content in found)


@pytest.mark.parametrize("cell", [["dog", "dog"], ["dog", 3], 5, {"dog": 1}])
def test_labels_that_are_no_list_of_names_name_their_row(root, cell):
    rows = [{"photo": "p/1.png", "events": cell}]
    with pytest.raises(ValueError, match=r"row 1, column 'events': the labels .* are not a list of different strings"):
        scan_manifest(save(root, "jsonl", rows), Columns(labels="events"))
