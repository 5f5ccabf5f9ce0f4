import csv
import io
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from multimodal.datamodules.checking import shard_check
from multimodal.datamodules.checking.field_check import FieldCheck
from multimodal.datamodules.checking.verify import open_index, verify_shards
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex, StoredIds

LONG = "k" * 300


def problems_of(folder, **options):
    found = []
    result = verify_shards(open_index(folder), found.append, **options)
    assert result.problems == len(found)
    return result, [(problem.shard, problem.key, problem.field, problem.reason) for problem in found]


def flat(samples):
    return [(f"{key}.{name}", data) for key, fields in samples for name, data in sorted(fields.items())]


def changed(samples, **fields):
    """The first sample with fields changed, added or (None) left out."""
    (key, first), *rest = samples
    return flat([(key, {name: data for name, data in (first | fields).items() if data is not None}), *rest])


def rekeyed(samples, key):
    return flat([(key, samples[0][1]), *samples[1:]])


def interleaved(samples):
    first, second = flat(samples[:1]), flat(samples[1:2])
    return [first[0], second[0], *first[1:], *second[1:], *flat(samples[2:])]


def folder_member(samples):
    info = tarfile.TarInfo("c0")
    info.type = tarfile.DIRTYPE
    return [(info, b""), *flat(samples)]


FIELD_CASES = {
    "a field is missing": (lambda s: changed(s, num=None), "num", "the field is missing; the index says that every sample has it"),
    "the metadata is missing": (lambda s: changed(s, json=None), "json", "the field is missing"),
    "a sample is missing": (lambda s: flat(s[1:]), "*", "19 samples; the index says 20"),
    "an extra sample": (lambda s: flat([*s, ("more", s[0][1])]), "*", "21 samples; the index says 20"),
    "an unknown field": (lambda s: changed(s, xyz=b"1"), "xyz", "the index knows no such field; it lists bin, json, num"),
    "an unknown compound field": (lambda s: changed(s, **{"fr.num": b"1"}), "fr.num", "the index knows no such field"),
    "a field twice": (lambda s: [flat(s)[0], *flat(s)], "bin", "the field is there twice"),
    "a field twice in another case": (lambda s: [("c0/0000.BIN", b"1"), *flat(s)], "bin", "the field is there twice"),
    "metadata that are a list": (lambda s: changed(s, json=b"[1]"), "json", "not a JSON object"),
    "metadata cut off": (lambda s: changed(s, json=b'{"label'), "json", "not a JSON object"),
    "metadata nested too deeply": (lambda s: changed(s, json=b"[" * 100_000), "json", "not a JSON object"),
    "a label that is no string": (lambda s: changed(s, json=b'{"label": 3}'), "json", "the label '3' is not a string"),
    "an unknown label": (lambda s: changed(s, json=b'{"label": "x"}'), "*", "1 samples have the label 'x'; it says 0"),
    "an empty field": (lambda s: changed(s, num=b""), "num", "bytes are in the field; it says"),
    "no extension": (lambda s: [("plain", b"1"), *flat(s)], "*", "the member 'plain' has no extension"),
    "fields of two samples mixed": (interleaved, "*", "the key is there twice: in this shard; two samples, or the fields of one"),
    "a key of 300 characters": (lambda s: rekeyed(s, LONG), "*", "the key is not safe"),
    "dots in the folder of a key": (lambda s: rekeyed(s, "v1.2/x"), "*", "the key is not safe"),
    "dots in a key": (lambda s: rekeyed(s, "x.1"), "1.num", "the index knows no such field"),
    "a newline in a key": (lambda s: rekeyed(s, "a\nb"), "*", "the key is not safe"),
    "fields in another order": (lambda s: [m for k, f in s for m in reversed(flat([(k, f)]))], None, None),
    "samples in another order": (lambda s: flat(s[::-1]), None, None),
    "a key in another script": (lambda s: rekeyed(s, "猫/Kätzchen und Hündchen"), None, None),
    "folders between the files": (folder_member, None, None),
}


@pytest.mark.parametrize("name", FIELD_CASES)
def test_what_is_wrong_with_fields_is_named(pack, repack, tar_of, numbers, name):
    change, field, reason = FIELD_CASES[name]
    folder = pack({"train": numbers})
    repack(folder, tar_of(change(numbers)))
    _, found = problems_of(folder)
    if field is None:
        assert found == []
    else:
        assert any(place == field and reason in told for _, _, place, told in found), found


def test_good_shards_have_no_problems_and_the_counts_of_the_index(make_shards):
    folder = make_shards(split="train=0.7,val=0.3", count=50)
    result, found = problems_of(folder)
    index = ShardIndex.load(folder)
    assert found == []
    assert (result.compared, result.bad_shards, result.contents.samples) == (True, 0, 50)
    assert result.contents.class_counts == index.class_counts
    assert result.contents.field_bytes == {name: info.bytes for name, info in index.fields.items()}


def tagged(numbers, *labels):
    return [(key, fields | {"json": json.dumps({"labels": own}).encode()}) for (key, fields), own in zip(numbers, labels, strict=False)]


def test_counts_of_several_labels_are_compared(pack, repack, tar_of, numbers):
    folder = pack({"train": tagged(numbers, ["dog"], ["dog", "rain"], [], [])})
    assert problems_of(folder)[1] == []
    repack(folder, tar_of(flat(tagged(numbers, ["dog"], ["rain"], [], "dog"))))
    _, found = problems_of(folder)
    told = [reason for *_, reason in found]
    assert any("1 samples have among their labels 'dog'; it says 2" in reason for reason in told)
    assert any("the labels 'dog' are not a list of different strings" in reason for reason in told)


def test_an_older_index_says_nothing_of_several_labels(pack, numbers):
    folder = pack({"train": tagged(numbers, ["dog"], ["rain"], "anything", [])})
    path = folder / "index.json"
    content = json.loads(path.read_text())
    assert content.pop("tags") == {"dog": 1, "rain": 1}
    path.write_text(json.dumps(content))
    assert problems_of(folder)[1] == []


def test_all_problems_of_all_shards_are_told(make_shards):
    folder = make_shards(count=64)
    names = [shard.path for shard in ShardIndex.load(folder).shards("train")]
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes(b"")
    data = bytearray((folder / names[2]).read_bytes())
    data[600] ^= 1
    (folder / names[2]).write_bytes(data)
    result, found = problems_of(folder)
    assert {shard for shard, *_ in found} == set(names[:3])
    assert (names[0], "*", "*", "cannot be read: No such file or directory.") in found
    assert any(shard == names[1] and "0 bytes; the index says" in reason for shard, *_, reason in found)
    assert [reason[:14] for shard, *_, reason in found if shard == names[2]] == ["its sha256 is "]
    assert (result.bad_shards, result.compared) == (3, False)


def test_processes_find_the_same_in_the_same_order(make_shards):
    folder = make_shards(count=64)
    for number in (1, 3):
        path = folder / f"train-{number:06d}.tar"
        path.write_bytes(path.read_bytes()[:-3000])
    done = []
    alone = problems_of(folder)
    assert problems_of(folder, num_workers=2, listener=lambda samples, size: done.append((samples, size))) == alone
    assert sum(samples for samples, _ in done) == alone[0].contents.samples
    assert sum(size for _, size in done) == sum(path.stat().st_size for path in folder.glob("*.tar"))


def test_a_key_in_two_shards_or_splits_is_told_once_for_each(pack, numbers):
    folder = pack({"train": numbers[:5], "val": [*numbers[5:9], numbers[2], numbers[4]]})
    _, found = problems_of(folder)
    told = "the key is there twice: also in train-000000.tar of split 'train'."
    assert found == [("val-000000.tar", numbers[place][0], "*", told) for place in (2, 4)]


def test_keys_with_equal_hashes_are_told_apart_by_name(pack, numbers, monkeypatch):
    folder = pack({"train": numbers})
    monkeypatch.setattr(shard_check, "stable_hash", lambda key: 7)
    assert problems_of(folder)[1] == []


def test_an_index_that_lists_a_shard_twice_or_gives_another_type(pack, numbers):
    folder = pack({"train": numbers})
    content = json.loads((folder / "index.json").read_text())
    content["splits"]["val"] = content["splits"]["train"]
    content["fields"]["num"]["type"] = "text/html"
    (folder / "index.json").write_text(json.dumps(content))
    _, found = problems_of(folder)
    assert ("index.json", "*", "*", "it lists train-000000.tar 2 times.") in found
    assert ("index.json", "*", "num", "it says the type text/html; the name stands for application/octet-stream.") in found
    assert sum("the key is there twice" in reason for *_, reason in found) == 20


def test_what_is_no_file_is_not_opened(pack, numbers):
    folder = pack({"train": numbers})
    (folder / "train-000000.tar").unlink()
    os.mkfifo(folder / "train-000000.tar")
    assert problems_of(folder)[1] == [("train-000000.tar", "*", "*", "cannot be read: not a regular file.")]


def test_the_list_of_a_hopeless_shard_ends(pack, numbers, monkeypatch, repack, tar_of):
    monkeypatch.setattr(shard_check, "MAX_PROBLEMS", 3)
    folder = pack({"train": numbers})
    repack(folder, tar_of([(name + "x", data) for name, data in flat(numbers)]))
    found = []
    result = verify_shards(open_index(folder), found.append)
    assert len([problem for problem in found if problem.shard != "index.json"]) == 3
    assert result.more == 20 * 6 - 3  # three unknown fields and three missing ones each
    assert result.problems == len(found) + result.more


def test_deep_decodes_what_something_reads_and_counts_the_rest(pack, media):
    samples = [(f"s{number}", {**media, "num": b"1"}) for number in range(3)]
    samples[1][1].update(png=b"no picture", mid=b"no music", npy=b"no array", **{"meta.json": b"{"})
    result, found = problems_of(pack({"train": samples}), deep=True)
    fields = {(key, field): reason for _, key, field, reason in found}
    assert fields.keys() == {("s1", name) for name in ("png", "mid", "npy", "meta.json")}
    assert "not an image" in fields["s1", "png"]
    assert "not an array" in fields["s1", "npy"]
    assert "not JSON" in fields["s1", "meta.json"]
    assert {field: count for (field, _), count in result.unchecked.items()} == {"num": 3}
    assert "no transform of this installation reads it" in next(iter(result.unchecked))[1]


def test_what_a_decoder_did_not_foresee_is_a_problem_too(pack, media, monkeypatch):
    from multimodal.tokenizers.image import ImageTransform

    monkeypatch.setattr(ImageTransform, "decode", lambda self, data: 1 / 0)
    _, found = problems_of(pack({"train": [("a", {"png": media["png"]})]}), deep=True)
    assert found == [("train-000000.tar", "a", "png", "the decoder failed: ZeroDivisionError: division by zero")]


def test_an_optional_package_that_is_missing_is_no_problem_of_the_data(pack, media, monkeypatch):
    from multimodal.tokenizers.image import ImageTransform

    def decode(self, data):
        try:
            import a_package_that_nobody_has  # noqa: F401
        except ImportError:
            raise ValueError("install it") from None

    monkeypatch.setattr(ImageTransform, "decode", decode)
    result, found = problems_of(pack({"train": [("a", {"png": media["png"]})]}), deep=True)
    assert found == []
    assert result.unchecked == {("png", "install it"): 1}


CRASH = """
import json, os, signal
whole = json.loads
def loads(data, **options):
    if data == b'{"label": "crash"}':
        os.kill(os.getpid(), signal.SIGSEGV)
    return whole(data, **options)
json.loads = loads
"""


def test_what_ends_the_process_that_reads_it_is_a_problem_of_the_shard(pack, numbers, tmp_path):
    bad = [("crash", {**numbers[0][1], "json": b'{"label": "crash"}'})]
    folder = pack({"train": numbers, "val": bad, "test": [(f"t{key}", fields) for key, fields in numbers]})
    (tmp_path / "sitecustomize.py").write_text(CRASH)  # runs in every process that starts
    command = [
        sys.executable,
        "-m",
        "multimodal",
        "shards",
        "verify",
        str(folder),
        "--workers",
        "2",
        "--csv",
        str(tmp_path / "problems.csv"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    rows = list(csv.reader((tmp_path / "problems.csv").open(newline="")))[1:]
    assert done.returncode == 1, done.stderr
    assert [row[:3] for row in rows] == [["val-000000.tar", "*", "*"]]
    assert "reading it ends the process" in rows[0][3]
    assert "signal 11" in rows[0][3]
    assert "3 shards, 40 samples" in done.stdout


def ids_npy(ids, dtype=np.uint8):
    file = io.BytesIO()
    np.save(file, np.asarray(ids, dtype))
    return file.getvalue()


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"m.0.ids.npy": [1, 2, 3], "m.1.ids.npy": [4, 5, 6]}, None, None),
        ({}, None, None),  # could not be decoded when the ids were made
        ({"m.0.ids.npy": [1, 2, 16], "m.1.ids.npy": [4, 5, 6]}, "m.0.ids.npy", "they must be in [0, 16)"),
        ({"m.0.ids.npy": [1, 2, 3]}, "m.1.ids.npy", "the ids of this view are missing; those of 1 of 2 views are there"),
        ({"m.0.ids.npy": [1, 2, 3], "m.1.ids.npy": [4, 5]}, "m.1.ids.npy", "2 ids; 'm.0.ids.npy' of the same sample has 3"),
        ({"m.0.ids.npy": [1, 2], "m.1.ids.npy": [4, 5]}, "m.0.ids.npy", "2 ids; the samples before have 3"),
    ],
)
def test_stored_ids_fit_their_vocabulary_and_each_other(pack, fields, field, reason):
    samples = [("a", {"m.0.ids.npy": ids_npy([1, 2, 3]), "m.1.ids.npy": ids_npy([1, 2, 3]), "num": b"1"})]
    samples.append(("b", {"num": b"1", **{name: ids_npy(ids) for name, ids in fields.items()}}))
    folder = pack({"train": [*samples, ("c", {"num": b"1"})]})
    index = ShardIndex.load(folder)
    index.ids["m"] = StoredIds("fingerprint", "a.Class", [16], "view", crops=2, train=["train"])
    index.save(folder)
    _, found = problems_of(folder, deep=True)
    told = [(place, why) for _, key, place, why in found if key == "b"]
    assert {key for _, key, *_ in found} <= {"b"}
    assert not told if field is None else any(place == field and reason in why for place, why in told), told


def test_views_of_other_splits_are_one():
    stored = StoredIds("fingerprint", "a.Class", [16], "view", crops=3, train=["train"])
    for split, count in (("train", 3), ("val", 1)):
        check = FieldCheck({"m": stored}, split)
        assert [view for view in range(9) if check.holds_ids(f"m.{view}.ids.npy")] == list(range(count))


def test_the_command_says_all_is_well(make_shards, capsys):
    assert main(["verify", str(make_shards())]) == 0
    out = capsys.readouterr().out
    assert "3 shards, 40 samples" in out
    assert "no problems" in out


def test_the_command_lists_the_first_problems_and_the_file_all(pack, repack, tar_of, numbers, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # a path that is broken over two lines is hard to find
    folder = pack({"train": numbers})
    repack(folder, tar_of([member for member in flat(numbers) if not member[0].endswith("num")] + [("a\x1b[31m.num", b"1")]))
    listing = tmp_path / "problems.csv"
    assert main(["verify", str(folder), "--csv", str(listing), "--workers", "0"]) == 1
    out = capsys.readouterr().out
    rows = list(csv.reader(listing.open(newline="")))
    assert rows[0] == ["shard", "key", "field", "reason"]
    assert ["train-000000.tar", "c3/0019", "num"] in [row[:3] for row in rows]
    assert f"{len(rows) - 1:,} problems in 1 of 1 shards" in out
    assert f"... {len(rows) - 1 - 20} more; all are in {listing}" in " ".join(out.split())
    assert "\x1b" not in out


@pytest.mark.parametrize("content", [None, b"{", b'{"version": 1}'])
def test_without_an_index_there_is_nothing_to_check_against(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "index.json").write_bytes(content)
    assert main(["verify", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "index.json" in error
    assert error.count("\n") == 1


def test_checking_the_structure_does_not_import_torch(make_shards):
    code = (
        "import sys; from multimodal.datamodules.commands import main; code = main(sys.argv[1:]); sys.exit('torch' in sys.modules or code)"
    )
    done = subprocess.run([sys.executable, "-c", code, "verify", str(make_shards())], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
