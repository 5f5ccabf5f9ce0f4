import pytest

from multimodal.datamodules.writing.sources import recognise


@pytest.fixture
def folder(tmp_path):
    for name in ("files/a/1.num", "shards/0.tar", "shards/index.json", "mixed/0.tar", "mixed/1.num", "list.csv", "list.parquet", "x.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["files"], "folder"),
        (["mixed"], "folder"),
        (["shards"], "tars"),
        (["shards/0.tar"], "tars"),
        (["shards/{0..3}.tar"], "tars"),
        (["shards/*"], "tars"),
        (["shards", "mixed/0.tar"], "tars"),
        (["list.csv"], "manifest"),
        (["list.parquet"], "manifest"),
        (["none.jsonl"], "manifest"),
    ],
)
def test_a_source_is_recognised(folder, names, kind):
    assert recognise([str(folder / name) for name in names]) == kind


@pytest.mark.parametrize(("name", "message"), [("none", "does not exist"), ("x.bin", r"is not a folder, a tar or a table \(\.csv")])
def test_what_is_no_source_is_refused(folder, name, message):
    with pytest.raises(ValueError, match=message):
        recognise([str(folder / name)])
