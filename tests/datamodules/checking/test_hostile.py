"""Shards, indexes, configs and weights made to do harm: nothing is run, nothing is written, and each is refused in words."""

import faulthandler
import gzip
import io
import json
import os
import pickle
import resource
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from multimodal.batch import Sample
from multimodal.datamodules.checking.decoders import load_decoders
from multimodal.datamodules.checking.verify import open_index, verify_shards
from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.datamodules.streaming.locations import open_sources
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.errors import SampleError

UNREAD = "no transform of this installation reads it"
MOST_MEMORY = 1 << 30


class Exploit:
    """Leaves a file when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(autouse=True)
def a_hang_ends_the_run():
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def canary(tmp_path):
    """A command that leaves a trace, the check that it works, and at the end the check that nobody ran it."""
    path = tmp_path / "canary"
    pickle.loads(pickle.dumps(Exploit(f"touch {path}")))
    assert path.exists()
    path.unlink()
    yield f"touch {path}"
    assert not path.exists(), "code out of a data file was run"


@pytest.fixture
def outside(tmp_path):
    """Everything that is there before must be all that is there after, but for what the test says."""
    allowed = set()
    before = {str(path) for path in tmp_path.rglob("*")}
    yield allowed
    after = {str(path) for path in tmp_path.rglob("*")} - {str(tmp_path / "packed")}
    assert {path for path in after - before if not path.startswith(str(tmp_path / "packed"))} <= {str(path) for path in allowed}


@pytest.fixture(scope="module")
def preparation():
    return SamplePreparation({type(t).__name__: t for t in load_decoders().transforms.values()}, [], seed=0, train=True)


def attack(folder, preparation):
    """Do with a shard all that can be done with it, and return what was said of it."""
    told = []
    result = verify_shards(open_index(folder), told.append, deep=True)
    said = [problem.reason for problem in told] + [reason for _, reason in result.unchecked]
    shard = ShardIndex.load(folder).shards("train")[0]
    for raw in read_samples(folder / shard.path, range(3), 3):
        if isinstance(raw, RawSample):
            try:
                assert isinstance(preparation(raw, 0, 0), Sample)
            except SampleError as error:
                said.append(error.reason)
        else:
            said.append(raw.reason)
    assert main(["inspect", str(folder)]) in (0, 1, 2)
    return said


@pytest.fixture
def harm(pack, repack, preparation):
    """Put a tar in the place of a shard and return all that is said of it; the memory taken stays small."""

    def run(data):
        folder = pack({"train": [("a", {"num": b"1"})]})
        repack(folder, data)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said = attack(folder, preparation)
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY
        return said

    return run


@pytest.mark.parametrize("extension", ["pyd", "pkl", "pickle", "thr", "pth", "pt", "ten", "tb", "mp", "cbor"])
def test_no_pickle_is_opened(harm, tar_of, canary, outside, extension):
    said = harm(tar_of([(f"a.{extension}", pickle.dumps(Exploit(canary)))]))
    assert UNREAD in said
    assert any("none of the fields wanted" in reason for reason in said)


@pytest.mark.parametrize("name", ["png", "wav", "mp4", "mid", "json", "txt", "npy"])
def test_a_pickle_under_a_good_name_is_damaged_data(harm, tar_of, canary, outside, name):
    said = harm(tar_of([(f"a.{name}", pickle.dumps(Exploit(canary)))]))
    assert UNREAD not in said
    told = ("not an image", "not a sound", "not a film", "not a MIDI", "not UTF-8", "not an array", "the metadata is not a JSON object")
    assert any(reason.startswith(told) for reason in said), said


def npy(header, body=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def test_an_array_of_objects_is_not_unpickled(harm, tar_of, canary, outside):
    file = io.BytesIO()
    np.save(file, np.array([Exploit(canary)], dtype=object), allow_pickle=True)
    assert any("an array of Python objects (object): refused" in reason for reason in harm(tar_of([("a.npy", file.getvalue())])))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-5,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (9999999999999999999999,)}",
        "__import__('os').system('touch canary')",
        "{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 5000,
    ],
)
def test_the_header_of_an_array_is_not_believed(harm, tar_of, outside, header):
    said = harm(tar_of([("a.npy", npy(header, bytes(80)))]))
    assert any("the header says" in reason or "not an array" in reason for reason in said), said


def bomb(kind):
    zeros, file = bytes(50_000_000), io.BytesIO()
    if kind == "json.gz":
        return gzip.compress(zeros * 4, 9)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("array.npy", zeros)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["json.gz", "npz"])
def test_nothing_is_decompressed(harm, tar_of, outside, kind):
    data = bomb(kind)
    assert len(data) < 500_000
    assert UNREAD in harm(tar_of([(f"a.{kind}", data)]))


def special(kind, link="/etc/passwd"):
    info = tarfile.TarInfo("a.num")
    info.type, info.linkname, info.devmajor, info.devminor = kind, link, 1, 3
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE])
def test_links_and_devices_are_refused(harm, tar_of, outside, kind):
    said = harm(tar_of([(special(kind), b"")]))
    assert sum("not a plain file" in reason for reason in said) == 2  # by the check and by the reader


@pytest.mark.parametrize("name", ["../../outside.num", "/tmp/outside.num", "a/../../b.num", "..\\..\\outside.num", "a\0b.num"])
def test_a_name_that_leaves_the_folder_is_only_a_name(harm, tar_of, outside, name):
    said = harm(tar_of([(name, b"1")]))
    assert any("the key is not safe" in reason for reason in said) or "\0" in name


def header(size=None, kind=b"0", name="a.num"):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if size is not None:
        block[124:136] = (b"\x80" if size >= 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


PAX = b"30 comment=" + b"x" * 18 + b"\n"


def extended(record, kind=b"x"):
    return header(len(record), kind) + record.ljust(-(-len(record) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        header(2**80) + bytes(2048),
        header(-512) + bytes(2048),
        header(-(2**60)) + bytes(2048),
        header(2**40, b"x") + PAX + bytes(2048),
        header(2**40, b"g") + PAX + bytes(2048),
        header(2**40, b"L") + bytes(2048),
        header(12, b"L") + b"a.num".ljust(512, b"\0") + header(2**40, b"x") + PAX + bytes(2048),
        extended(b"18 size=999999999\n") + header(1) + bytes(2048),
        extended(b"14 size=-9999\n") + header(1) + bytes(2048),
        extended(b"99999999999999999999 path=x\n") + header(1) + bytes(2048),
        extended(b"22 GNU.sparse.size=100\n") + header(1) + bytes(2048),
        header(0, b"S") + bytes(2048),
        header(12, b"L") * 3000 + bytes(2048),
        (header(12, b"L") + b"a.num".ljust(512, b"\0")) * 3000 + bytes(2048),
        extended(b"12 path=a.b\n") * 3000 + bytes(2048),
    ],
    ids=[
        "a size of 2 ** 80 bytes", "a negative size", "a size far below 0", "a pax header of a terabyte", "a global one",
        "a long name of a terabyte", "a pax header of a terabyte behind a long name", "a size in a pax header", "a negative one",
        "a pax record without end", "a sparse file", "an old sparse file", "3000 long names without end", "3000 long names",
        "3000 pax headers",
    ],
)  # fmt: skip
def test_a_tar_that_lies_is_damaged(harm, outside, data):
    said = harm(data)
    assert any("damaged" in reason or "not a plain file" in reason for reason in said), said


@pytest.mark.parametrize("name", ["pipe:{}", "pipe: {}", " pipe:{}", "{} |", "x.tar|{}"])
def test_no_shell_runs_for_the_name_of_a_source(canary, outside, name):
    with pytest.raises(ValueError, match="asks for a command to be run: refused"):
        open_sources([name.format(canary)])


@pytest.mark.parametrize(
    "shard", ["pipe:{}", "../secret.tar", "/etc/passwd", "a/../../secret.tar", "..\\secret.tar", "C:\\secret.tar", "a\0.tar", ""]
)
def test_an_index_names_no_command_and_no_file_outside(pack, canary, tmp_path, shard):
    folder = pack({"train": [("a", {"num": b"1"})]})
    (tmp_path / "secret.tar").write_bytes((folder / "train-000000.tar").read_bytes())
    content = json.loads((folder / "index.json").read_text())
    content["splits"]["train"][0]["path"] = shard.format(canary)
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"outside its folder|missing"):
        ShardIndex.load(folder)
    assert main(["verify", str(folder)]) in (1, 2)
    assert main(["inspect", str(folder)]) == 2


CONFIGS = {
    "a Python object": "model: !!python/object/apply:os.system ['{}']\n",
    "a Python name": "model: !!python/name:os.system\n",
    "a function as model": "model:\n  class_path: os.system\n  init_args:\n    command: {}\n",
    "a process as callback": "trainer:\n  callbacks:\n    - class_path: subprocess.Popen\n      init_args: {{args: ['sh', '-c', '{}']}}\n",
    "a function as data": "data:\n  class_path: os.system\n  init_args:\n    command: {}\n",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_runs_no_function(canary, tmp_path, capsys, name):
    from multimodal.cli import main as multimodal

    path = tmp_path / "config.yaml"
    path.write_text(CONFIGS[name].format(canary))
    assert multimodal(["fit", "--config", str(path), "--run", str(tmp_path / "run")]) != 0
    assert capsys.readouterr().err.startswith("error: ")


def tokenizer_folder(folder, config, weights=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


@pytest.mark.parametrize("path", ["os.system", "multimodal.tokenizers.pretrained.importlib", "multimodal.tokenizers.image.os.system"])
def test_the_config_of_a_tokenizer_names_no_function(canary, tmp_path, path):
    from multimodal.tokenizers.pretrained import load_tokenizer

    folder = tokenizer_folder(tmp_path / "t", {"class": path, "fingerprint": "", "config": {"command": canary}})
    with pytest.raises(ValueError, match=r"holds a|names"):
        load_tokenizer(folder)


DVAE = {"num_tokens": 8, "width": 4, "codebook_dim": 4, "num_layers": 1}


@pytest.mark.parametrize(
    "weights",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 64) + b'{"codebook.weight":{"dtype":"F32","shape":[8,4],"data_offsets":[0,9999999]}}',
        struct.pack("<Q", 77) + b'{"codebook.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,128]}}',
        b"",
    ],
    ids=["a header of 2 ** 62 bytes", "values behind the end", "a shape of 2 ** 64 values", "nothing"],
)
def test_weights_that_lie_are_refused(tmp_path, weights):
    from multimodal.tokenizers.pretrained import load_tokenizer

    config = {"class": "multimodal.tokenizers.image.dvae.DiscreteVAE", "fingerprint": "", "config": DVAE}
    with pytest.raises(ValueError, match=r"model.safetensors does not match"):
        load_tokenizer(tokenizer_folder(tmp_path / "t", config, weights))


def test_pickled_weights_are_refused(canary, tmp_path):
    from multimodal.tokenizers.pretrained import load_tokenizer

    config = {"class": "multimodal.tokenizers.image.dvae.DiscreteVAE", "fingerprint": "", "config": DVAE}
    with pytest.raises(ValueError, match=r"model.safetensors does not match"):
        load_tokenizer(tokenizer_folder(tmp_path / "t", config, pickle.dumps(Exploit(canary))))


@pytest.mark.parametrize("name", ["eps", "png", "jpg"])
def test_postscript_is_not_interpreted(harm, tar_of, canary, outside, name):
    program = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%{canary}) (w) file\n%%EOF\n".encode()
    said = harm(tar_of([(f"a.{name}", program)]))
    assert UNREAD in said if name == "eps" else any("not an image" in reason for reason in said)


def test_a_playlist_opens_no_other_file(harm, tar_of, tmp_path, outside):
    (tmp_path / "secret.mp4").write_bytes(b"x")
    outside.add(tmp_path / "secret.mp4")
    playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n".encode()
    said = harm(tar_of([("a.mp4", playlist)]))
    assert any("container" in reason or "damaged" in reason for reason in said)
