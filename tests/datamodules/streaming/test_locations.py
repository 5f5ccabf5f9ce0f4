import json
import tarfile

import fsspec
import pytest
import webdataset

from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.streaming.locations import open_source, open_sources


def test_folders_by_name_braces_and_globs(make_shards, tmp_path):
    for name in ("a0", "a1", "b0"):
        make_shards(name, count=5)
    assert len(open_sources([str(tmp_path / "a0"), str(tmp_path / "b0")])) == 2
    assert [source.root.name for source in open_sources([str(tmp_path / "a{0..1}")])] == ["a0", "a1"]
    assert [source.root.name for source in open_sources([str(tmp_path / "[ab]0")])] == ["a0", "b0"]
    assert open_source(str(tmp_path / "b0")).root.name == "b0"
    with pytest.raises(ValueError, match=r"\[ab\]0 stands for 2 sources: name them one by one"):
        open_source(str(tmp_path / "[ab]0"))


@pytest.fixture
def foreign(tmp_path):
    """Write tars as other people do, with webdataset's own writer."""
    (tmp_path / "wds").mkdir()
    for name, count in (("things-train-000000", 6), ("things-train-000001", 5), ("things-val-000000", 3)):
        with webdataset.TarWriter(str(tmp_path / "wds" / f"{name}.tar")) as sink:
            for number in range(count):
                sink.write({"__key__": f"{name}/{number}", "num": str(number).encode(), "json": {"label": f"c{number % 2}"}})
    return tmp_path / "wds"


def test_tars_of_webdatasets_writer_are_read_without_an_index(foreign, transforms):
    (source,) = open_sources([str(foreign / "things-{train-00000{0,1},val-000000}.tar")])
    assert (source.num_samples("train"), source.num_samples("val")) == (11, 3)
    assert source.fields["num"].samples == 14
    assert source.classes == ["c0", "c1"]
    module = ShardDataModule(str(foreign / "*.tar"), transforms, batch_size=4)
    read = [
        (key, label) for batch in module.train_dataloader() for key, label in zip(batch.keys, batch.labels["label"].tolist(), strict=True)
    ]
    assert len(read) == 11 and all(int(key[-1]) % 2 == label for key, label in read)


def test_tars_of_the_command_tar_are_read_without_their_folders(tmp_path, transforms):
    (tmp_path / "files" / "cat").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "files" / "cat" / f"{number}.num").write_text(str(number))
    with tarfile.open(tmp_path / "some.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(tmp_path / "files", arcname=".")
    (source,) = open_sources([str(tmp_path / "some.tar")])
    assert source.num_samples("train") == 4
    batches = list(ShardDataModule(str(tmp_path / "some.tar"), transforms, 4).train_dataloader())
    assert sorted(key for batch in batches for key in batch.keys) == [f"./cat/{number}" for number in range(4)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe:cat x.tar", "asks for a command to be run: refused"),
        ("cat x.tar | sort", "asks for a command to be run: refused"),
        ("{tmp}/none*", "none.* stands for no folder or file"),
        ("{tmp}/none", r"none/index\.json does not exist"),
        ("{tmp}/none.tar", r"none\.tar is not a file"),
        ("{tmp}/junk.tar", r"junk\.tar holds no samples \(invalid header\)"),
        ("memory://nothing/here", r"memory://nothing/here/index\.json does not exist"),
        ("memory://nothing/x.tar", "can only be read where they are local"),
        ("nosuchthing://x", "cannot be fetched: ValueError: Protocol not known"),
    ],
)
def test_names_that_stand_for_nothing_usable_are_refused(tmp_path, name, message):
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    with pytest.raises(ValueError, match=message):
        open_sources([name.replace("{tmp}", str(tmp_path))])


def test_a_remote_index_cannot_name_shards_elsewhere(make_shards):
    folder = make_shards()
    content = json.loads((folder / "index.json").read_text())
    content["splits"]["train"][0]["path"] = "../other.tar"
    with fsspec.open("memory://evil/index.json", "wb") as file:
        file.write(json.dumps(content).encode())
    with pytest.raises(ValueError, match="outside its folder"):
        open_sources(["memory://evil"])


def test_remote_folders_by_glob(make_shards):
    folder = make_shards()
    for name in ("g0", "g1"):
        with fsspec.open(f"memory://globs/{name}/index.json", "wb") as file:
            file.write((folder / "index.json").read_bytes())
    assert [source.url for source in open_sources(["memory://globs/g*"])] == ["memory:///globs/g0", "memory:///globs/g1"]


def test_several_labels_are_found_in_tars_without_an_index(tmp_path, transforms):
    with webdataset.TarWriter(str(tmp_path / "x.tar")) as sink:
        for number, labels in enumerate((["rain"], ["dog", "rain"], [], "dog", None)):
            sink.write({"__key__": str(number), "num": str(number).encode(), "json": {"labels": labels}})
    (source,) = open_sources([str(tmp_path / "x.tar")])
    assert source.tag_counts == {"rain": 2, "dog": 1} and source.classes == []
    module = ShardDataModule(str(tmp_path / "x.tar"), transforms, 5)
    assert module.tags == ["dog", "rain"]
