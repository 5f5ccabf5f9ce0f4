"""Random damage to everything that is parsed: it ends in a result or in one of our errors, soon and with little memory."""

import copy
import faulthandler
import io
import json
import random
import tarfile

import numpy as np
import pytest

from multimodal.datamodules.checking.arrays import load_array
from multimodal.datamodules.checking.shard_check import ShardTask, check_shard
from multimodal.datamodules.checking.verify import verify_shards
from multimodal.datamodules.shards.contents import metadata_of
from multimodal.datamodules.shards.index import ShardIndex, ShardInfo
from multimodal.datamodules.shards.keys import MAX_KEY_BYTES, clean_key, parse_fractions, split_of
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.datamodules.tokenizing.id_arrays import ids_from_npy
from multimodal.errors import SampleError

QUICK, SLOW = 300, 12_500
TOKENS = [
    b"\0" * 8,
    b"\xff" * 8,
    b"0",
    b"-1",
    b"9" * 30,
    b"1e999",
    b"null",
    b"[]",
    b"{}",
    b"..",
    b"/",
    b"\n",
    b"=",
    b",",
    b"x" * 700,
    b"path",
    b"size",
]


@pytest.fixture(autouse=True)
def a_hang_ends_the_run():
    faulthandler.dump_traceback_later(900, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def damaged(data, rng):
    """Return the bytes with one to four random changes."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(result) + 1)
        end = min(len(result), place + rng.choice([1, 1, 4, 16, 512]))
        change = rng.randrange(7)
        if change == 0 and place < len(result):
            result[place] ^= 1 << rng.randrange(8)
        elif change == 1:
            result[place:end] = rng.randbytes(end - place)
        elif change == 2:
            del result[place:end]
        elif change == 3:
            result[place:place] = rng.choice(TOKENS)
        elif change == 4:
            result[place:end] = rng.choice(TOKENS)
        elif change == 5:
            result[place:place] = result[place:end]
        else:
            del result[place:]
    return bytes(result)


VALUES = [None, True, 0, -1, 1.5, 10**30, "", "x", "../x", "a\0b", "pipe:x", [], [1], ["x"], {}, {"x": 1}, [[]], float("nan")]


def rewritten(data, rng):
    """Return JSON with one to three values, somewhere in it, replaced, added or left out."""
    content = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(inner(content))
        if not places:
            break
        container, key = rng.choice(places)
        change = rng.randrange(4)
        if change == 0:
            del container[key]
        elif change == 1 and isinstance(container, dict):
            container[rng.choice(["", "x", "../x", "a\0b", "\ud800"])] = copy.deepcopy(container[key])
        else:
            container[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(content).encode()


def inner(content):
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield content, key
        yield from inner(value)


def tars(tmp_path):
    """Archives of every format, with long names and records that override what the header says."""
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            for name in ("a.num", "a.json", "d" * 60 + "/" + "k" * 80 + ".num", "c.num"):
                info = tarfile.TarInfo(name)
                info.size = 5
                if kind == tarfile.PAX_FORMAT and name == "c.num":
                    info.pax_headers = {"path": "ä.num", "size": "5", "GNU.sparse.size": "5"}
                archive.addfile(info, io.BytesIO(b"12345"))
        yield file.getvalue()


def read_tar(data, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    results = list(read_samples(path, range(4), 4))
    assert len(results) == 4
    assert all(isinstance(result, (RawSample, SampleError)) for result in results)
    report = check_shard(ShardTask(str(path), ShardInfo("x.tar", 4, len(data), ""), "train", frozenset(), frozenset(), {}, False))
    assert report.contents.samples <= len(data) // 512


def indexes(tmp_path):
    shard = {"path": "x.tar", "samples": 4, "bytes": 9, "sha256": "ab"}
    ids = {"tokenizer": "f", "tokenizer_class": "a.B", "vocab_sizes": [16, 4], "transform": "v", "crops": 2, "seed": 1, "train": ["train"]}
    content = {"version": 2, "splits": {"train": [shard], "val": []}, "fields": {"num": {"samples": 4, "bytes": 20, "type": "a/b"}}}
    yield json.dumps(content | {"classes": {"c": 4}, "ids": {"m": ids}, "writer": {}}).encode()


def read_index(data, tmp_path):
    index = ShardIndex.parse(data, "index.json")
    sizes = [shard.bytes + shard.samples for split in index.splits for shard in index.shards(split)]
    assert sum(sizes) >= 0
    assert sum(info.bytes + info.samples for info in index.fields.values()) >= 0
    assert sum(index.class_counts.values()) >= 0
    assert all(stored.crops >= 1 and min(stored.vocab_sizes) >= 1 for stored in index.ids.values())
    verify_shards(index, lambda problem: None)
    index.classes, [index.location(shard) for shard in index.shards("train")]
    saved = index.save(tmp_path).read_bytes()
    assert ShardIndex.parse(saved, "index.json").save(tmp_path).read_bytes() == saved


def clean(data, tmp_path):
    key = clean_key(data.decode("utf-8", "surrogateescape"))
    assert key and clean_key(key) == key and len(key.encode()) <= MAX_KEY_BYTES
    assert ".." not in key and not key.startswith("/") and key.isprintable()


def splits(data, tmp_path):
    fractions = parse_fractions(data.decode("utf-8", "surrogateescape"))
    assert abs(sum(fractions.values()) - 1) < 1e-5
    assert split_of("key", fractions) in fractions


def read_notes(data, tmp_path):
    from multimodal.tokenizers.midi import MidiTransform

    score = MidiTransform(min_notes=1).decode(data)
    assert len(score) > 0 and score.notes.shape == (len(score), 6)
    assert MidiTransform(min_notes=1).describe(data)["notes"] > 0


def arrays(tmp_path):
    for array in (np.arange(12, dtype=np.uint8).reshape(6, 2), np.zeros((3, 0)), np.array(1.5), np.ones((2, 2), order="F")):
        for version in ((1, 0), (2, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version=version)
            yield file.getvalue()


def read_array(data, tmp_path):
    try:
        assert load_array(data).nbytes <= len(data)
    finally:
        ids_from_npy(data, [16, 16])


def read_words(data, tmp_path):
    from multimodal.tokenizers.text import TextTransform

    assert len(TextTransform().decode(data)) > 0
    assert TextTransform().describe(data)["characters"] > 0


CASES = {
    "tar": (tars, read_tar),
    "index": (indexes, read_index),
    "keys": (lambda _: ["7/0001 ä".encode(), b"../../etc/passwd", b"v1.2/x\\y", b"\xff\xfe\x00"], clean),
    "splits": (lambda _: [b"train=0.8,val=0.1,test=0.1", b"train=1"], splits),
    "notes": (None, read_notes),
    "arrays": (arrays, read_array),
    "words": (None, read_words),
    "metadata": (lambda _: [b'{"label": "a", "x": [1, 2.5, null, {"y": "\\u00e4"}]}'], lambda data, _: metadata_of(data)),
}


def fuzz(target, count, tmp_path, media):
    originals, parse = CASES[target]
    good = [media[{"notes": "mid", "words": "txt"}[target]]] if originals is None else list(originals(tmp_path))
    rng = random.Random(target)
    ended = {"result": 0, "our error": 0}
    for number in range(count):
        change = rewritten if target == "index" and number % 4 else damaged
        data = change(rng.choice(good), rng)
        try:
            parse(data, tmp_path)
            ended["result"] += 1
        except ValueError as error:  # SampleError is one
            assert str(error)
            ended["our error"] += 1
        except BaseException as error:
            error.add_note(f"input number {number} of {target}: {data!r}")
            raise
    return ended


@pytest.mark.parametrize("target", CASES)
def test_random_damage_ends_in_a_result_or_in_our_error(target, tmp_path, media):
    ended = fuzz(target, QUICK, tmp_path, media)
    assert sum(ended.values()) == QUICK
    assert ended["result"] > 0
    assert ended["our error"] > 0 or target in ("tar", "keys")  # the reader returns its errors, and every name can be cleaned


@pytest.mark.slow
@pytest.mark.parametrize("target", CASES)
def test_a_hundred_thousand_inputs(target, tmp_path, media):
    assert sum(fuzz(target, SLOW, tmp_path, media).values()) * len(CASES) == 100_000
