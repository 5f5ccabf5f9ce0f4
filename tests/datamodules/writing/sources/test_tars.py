import io
import json
import os
import tarfile

import pytest
import webdataset

from multimodal.datamodules.commands import main
from multimodal.datamodules.writing.sources import FileError, scan_tars

LINK = tarfile.TarInfo("a.lnk")
LINK.type, LINK.linkname = tarfile.SYMTYPE, "/etc/passwd"
DEVICE = tarfile.TarInfo("a.dev")
DEVICE.type = tarfile.CHRTYPE


def save(path, members):
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return str(path)


@pytest.fixture
def shards(tmp_path):
    """Three shards of webdataset's own writer, with foreign keys, dots in fields and its metadata."""
    with webdataset.ShardWriter(str(tmp_path / "old-%03d.tar"), maxcount=20, verbose=0) as writer:
        for number in range(50):
            writer.write(
                {"__key__": f"d/Größe {number:03d}", "jpg": bytes([number]) * 700, "left.txt": f"t{number}", "json": {"n": number}}
            )
    return [str(path) for path in sorted(tmp_path.glob("old-*.tar"))]


def read(scan):
    return {sample.key: sample.read() for sample, _ in scan.samples}


def own_fields(sample):
    return {name: data for name, data in sample.items() if not name.startswith("__")}


def keys_of(paths):
    return {sample["__key__"] for sample in webdataset.WebDataset(list(map(str, paths)), shardshuffle=False)}


def test_what_webdataset_wrote_keeps_its_keys_fields_and_bytes(shards):
    found = read(scan_tars(shards))
    expected = {sample["__key__"]: sample for sample in webdataset.WebDataset(shards, shardshuffle=False)}
    assert found.keys() == expected.keys()
    for key, fields in found.items():
        assert fields == own_fields(expected[key])


def test_shards_cut_anew_hold_the_same_samples_and_are_read_by_webdataset(shards, tmp_path):
    out = tmp_path / "out"
    assert main(["write", *shards, "--to", str(out), "--workers", "0", "--samples-per-shard", "7", "--split", "train=1"]) == 0
    again = webdataset.WebDataset([str(path) for path in sorted(out.glob("*.tar"))], shardshuffle=False)
    before = {sample["__key__"]: own_fields(sample) for sample in webdataset.WebDataset(shards, shardshuffle=False)}
    after = {sample["__key__"]: own_fields(sample) for sample in again}
    assert len(after) == 50
    assert after == before


def test_the_splits_of_an_index_stay(make_shards, tmp_path):
    folder = make_shards(split="train=0.5,val=0.5", count=60)
    out = tmp_path / "out"
    assert main(["write", str(folder), "--to", str(out), "--workers", "0", "--samples-per-shard", "9"]) == 0
    for split in ("train", "val"):
        before, after = (keys_of(sorted(where.glob(f"{split}-*"))) for where in (folder, out))
        assert before == after != set()


@pytest.mark.parametrize("pattern", ["{tmp}", "{tmp}/old-*.tar", "{tmp}/old-{000..002}.tar", "{tmp}/old-00[012].tar"])
def test_folders_braces_and_globs(shards, tmp_path, pattern):
    assert len(scan_tars([pattern.replace("{tmp}", str(tmp_path))]).samples) == 50


def test_a_label_may_come_from_a_field_or_from_the_metadata(tmp_path):
    path = save(tmp_path / "a.tar", [("a.cls", b"7\n"), ("a.json", b'{"label": 3, "kind": 5}'), ("a.num", b"1")])
    labels = {name: scan_tars([path], label_field=name).samples[0][0].metadata() for name in ("cls", "kind", "label")}
    assert labels == {"cls": {"label": "7", "kind": 5}, "kind": {"label": "5", "kind": 5}, "label": {"label": "3", "kind": 5}}
    assert read(scan_tars([path]))["a"]["json"] == b'{"label": 3, "kind": 5}'
    with pytest.raises(ValueError, match="the sample 'a' has no field and no metadata 'x' for its label"):
        scan_tars([path], label_field="x")


def test_only_the_fields_asked_for(shards):
    scan = scan_tars(shards, extensions=["txt"])
    assert {name for fields in read(scan).values() for name in fields} == {"left.txt", "json"}
    assert scan.ignored == {"jpg": 50}


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../b", "a\\b"])
def test_unsafe_keys_are_cleaned(tmp_path, name):
    ((key, fields),) = read(scan_tars([save(tmp_path / "a.tar", [(f"{name}.num", b"1")])])).items()
    assert not key.startswith("/") and ".." not in key and "\\" not in key
    assert fields == {"num": b"1"}


def test_names_below_a_dot_and_files_of_systems(tmp_path):
    path = save(tmp_path / "a.tar", [("./c/1.num", b"1"), ("./c/._1.num", b"x"), ("__meta__/x.num", b"y"), ("./c/1.txt", b"t")])
    scan = scan_tars([path])
    assert read(scan) == {"c/1": {"num": b"1", "txt": b"t"}}
    assert scan.ignored == {"": 2}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.num", b"1"), LINK], "key 'a', field 'lnk': not a plain file: links, devices"),
        ([("a.num", b"1"), DEVICE], "key 'a', field 'dev': not a plain file: links, devices"),
        ([("a.num", b"1"), ("a.NUM", b"2")], "key 'a', field 'num': the field is there twice"),
        ([("a", b"1")], "key 'a': the field '' needs letters"),
        ([("a.x y", b"1")], "key 'a': the field 'x y' needs letters"),
    ],
)
def test_unsafe_members_are_refused_or_left_out(tmp_path, members, message):
    path = save(tmp_path / "x.tar", [*members, ("good.num", b"1")])
    with pytest.raises(FileError, match=rf"x\.tar, {message}"):
        scan_tars([path])
    scan = scan_tars([path], on_error="skip")
    assert list(read(scan)) == ["good"]
    assert len(scan.problems) == 1


def test_a_key_twice_names_tar_and_key(tmp_path):
    one, two = (save(tmp_path / f"{name}.tar", [("k.num", b"1"), ("other" + name + ".num", b"2")]) for name in "ab")
    with pytest.raises(ValueError, match=r"b\.tar: the key 'k' is there already, in .*a\.tar"):
        scan_tars([one, two])
    torn = save(tmp_path / "torn.tar", [("k.num", b"1"), ("x.num", b"1"), ("k.txt", b"1")])
    with pytest.raises(ValueError, match=r"torn\.tar: the key 'k' is there already, in .*torn\.tar"):
        scan_tars([torn])


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_tars_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as archive:
        archive.addfile(tarfile.TarInfo("a.num"))
    with pytest.raises(FileError, match=r"a\.tar: compressed with .*: decompress it first"):
        scan_tars([str(tmp_path / "a.tar")])


def test_a_cut_off_tar_is_named_or_its_complete_samples_are_taken(shards):
    os.truncate(shards[1], os.path.getsize(shards[1]) // 2)
    with pytest.raises(FileError, match=r"old-001\.tar: not a complete tar"):
        scan_tars(shards)
    scan = scan_tars(shards, on_error="skip")
    assert 30 < len(scan.samples) < 50
    assert len(scan.problems) == 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pipe:cat x.tar", "refused"),
        ("{tmp}/none-*.tar", "stands for no file"),
        ("{tmp}/none.tar", "No such file"),
        ("{tmp}/d", "holds no tars"),
    ],
)
def test_names_that_stand_for_nothing(tmp_path, pattern, message):
    (tmp_path / "d").mkdir()
    with pytest.raises(ValueError, match=message):
        scan_tars([pattern.replace("{tmp}", str(tmp_path))])


def test_a_tar_that_changed_since_the_scan_is_named(tmp_path):
    path = save(tmp_path / "a.tar", [("a.num", b"1"), ("b.num", json.dumps([1]).encode())])
    sample = scan_tars([path]).samples[0][0]
    save(tmp_path / "a.tar", [("b.num", b"2"), ("a.num", b"111")])
    with pytest.raises(FileError, match=r"a\.tar: had 10240 bytes when it was scanned, now 10240, or was written again"):
        sample.read()
