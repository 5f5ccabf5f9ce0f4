"""Pickled modules: what is not a module or a tensor is refused before anything runs."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from multimodal.pretrained.unpickle import LEGACY_MAGIC, read_module


class Evil:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def tree() -> nn.Module:
    torch.manual_seed(0)
    shared = nn.Linear(3, 2)
    return nn.Sequential(
        OrderedDict(first=shared, norm=nn.BatchNorm1d(2), inner=nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), none=nn.Identity())
    )


def as_zip(path: Path, program: bytes, storages: dict[str, bytes] | None = None, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def as_legacy(path: Path, program: bytes, rest: bytes = b"") -> Path:
    head = [pickle.dumps(x, 2) for x in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(head) + program + rest)
    return path


def tensor_program(offset: int, size: tuple[int, ...], stride: tuple[int, ...], count: int = 4, key: str = "0") -> bytes:
    """A module with one parameter that is cut from a storage as said."""

    storage = object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, key, "cpu", count) if value is storage else None

    module = nn.Module()
    module._parameters["w"] = Evil(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(module)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_names_and_values_are_those_of_the_state_dict(tmp_path, legacy):
    module = tree()
    torch.save(module, tmp_path / "module.pkl", _use_new_zipfile_serialization=not legacy)
    found, state = read_module(tmp_path / "module.pkl"), module.state_dict()
    assert list(found) == list(state)
    assert all(torch.equal(found[name], x) for name, x in state.items())


@pytest.mark.parametrize("wrap", [as_zip, as_legacy])
@pytest.mark.parametrize("place", ["root", "attribute", "parameter", "class"])
@pytest.mark.parametrize("call", ["system", "eval", "exec", "import", "getattr", "open"])
def test_code_never_runs(tmp_path, wrap, place, call):
    canary = tmp_path / "canary"
    script = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    evil = {
        "system": Evil(os.system, f"touch {canary}"),
        "eval": Evil(eval, script),
        "exec": Evil(exec, script),
        "import": Evil(__import__, "antigravity"),
        "getattr": Evil(getattr, OrderedDict, "__init__"),
        "open": Evil(open, str(canary), "w"),
    }[call]
    module = tree()
    if place == "attribute":
        module.__dict__["note"] = evil
    if place == "parameter":
        module._parameters["w"] = evil
    if place == "class":
        module._modules["inner"] = evil
    program = pickle.dumps(evil if place == "root" else module, 2)
    if call in ("system", "eval", "exec", "open"):
        pickle.loads(program)  # the file does what it says where nothing holds it back
        assert canary.exists()
        canary.unlink()
    path = wrap(tmp_path / "evil.pkl", program)
    with pytest.raises(ValueError, match=r"evil\.pkl is refused: it asks for"):
        read_module(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["dall_eX.encoder.Encoder", "torch.nn.functional.relu", "torch.load", "torch.nn.Module", "torch.hub.load", "numpy.load"]
)
def test_names_near_the_allowed_ones(tmp_path, name):
    module, _, leaf = name.rpartition(".")
    program = b"\x80\x02c" + module.encode() + b"\n" + leaf.encode() + b"\n)R."
    path = as_zip(tmp_path / "near.pkl", program)
    with pytest.raises(ValueError, match="is refused"):  # a name of torch.nn is a shell, which holds no tensors and calls nothing
        if read_module(path) == {}:
            raise ValueError("is refused")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x0b__globals__K\x01sb.",
        b"\x80\x02ccollections\nOrderedDict\n}U\x04keysK\x01sb.",
        b"\x80\x02cdall_e.encoder\nEncoder\n}U\x0c__setstate__K\x01sb.",
    ],
    ids=["function", "class", "shell"],
)
def test_nothing_of_ours_can_be_changed(tmp_path, program):
    with pytest.raises(ValueError, match="it changes a"):
        read_module(as_zip(tmp_path / "module.pkl", program))
    torch.save(tree(), tmp_path / "good.pkl")
    assert read_module(tmp_path / "good.pkl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (5,), (1,)), "5 values, the last at 4, is not within a storage of 4"),
        ((3, (2,), (1,)), "the last at 4, is not within"),
        ((0, (2, 2), (3, 1)), "the last at 4, is not within"),
        ((-1, (2,), (1,)), "a shape that no tensor has"),
        ((0, (2,), (-1,)), "a shape that no tensor has"),
        ((0, (2, 2), (1,)), "a shape that no tensor has"),
        ((0, (10**12,), (0,)), "1000000000000 values, the last at 0, is not within"),
        ((0, (4,), (1,), 5), "a storage of 5 values of torch.float32 has 16 bytes"),
        ((0, (4,), (1,), -4), "has 16 bytes"),
        ((0, (4,), (1,), 4, "1"), "damaged"),
    ],
)
def test_tensors_stay_within_their_storage(tmp_path, arguments, message):
    path = as_zip(tmp_path / "module.pkl", tensor_program(*arguments), {"0": torch.arange(4.0).numpy().tobytes()})
    with pytest.raises(ValueError, match=message):
        read_module(path)


def test_a_tensor_is_cut_by_offset_and_stride(tmp_path):
    path = as_zip(tmp_path / "module.pkl", tensor_program(0, (2, 2), (1, 2)), {"0": torch.arange(4.0).numpy().tobytes()})
    assert read_module(path)["w"].tolist() == [[0, 2], [1, 3]]


def test_archives_that_torch_does_not_write(tmp_path):
    with tarfile.open(tmp_path / "old.pkl", "w") as archive:
        archive.add(__file__, "pickle")
    compressed = as_zip(tmp_path / "bomb.pkl", b"0" * 10_000, compression=zipfile.ZIP_DEFLATED)
    for path, message in ((tmp_path / "old.pkl", "is a tar archive"), (compressed, "is compressed, which torch never does")):
        with pytest.raises(ValueError, match=message):
            read_module(path)


def test_a_legacy_storage_that_lies_about_its_size(tmp_path):
    buffer = io.BytesIO()
    torch.save(nn.Linear(2, 2), buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    place = data.rindex(struct.pack("<q", 2))
    (tmp_path / "lie.pkl").write_bytes(data[:place] + struct.pack("<q", 2**40) + data[place + 8 :])
    with pytest.raises(ValueError, match=f"has {2**40} values, and 2 are expected"):
        read_module(tmp_path / "lie.pkl")


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"a": 1}), pickle.dumps([1])])
def test_other_files(tmp_path, content):
    (tmp_path / "other.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pkl is"):
        read_module(tmp_path / "other.pkl")


@pytest.mark.parametrize("value", [{"w": torch.zeros(2)}, [1], "text", OrderedDict()])
def test_what_is_no_module(tmp_path, value):
    torch.save(value, tmp_path / "value.pkl")
    with pytest.raises(ValueError, match="is refused: it holds a"):
        read_module(tmp_path / "value.pkl")


def test_modules_without_end(tmp_path):
    module = nn.Module()
    module._modules["self"] = module
    with pytest.raises(ValueError, match="its modules have no end"):
        read_module(as_zip(tmp_path / "loop.pkl", pickle.dumps(module, 2)))


@pytest.mark.parametrize("legacy", [False, True])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_one_kind_of_error(tmp_path_factory, legacy, data):
    buffer = io.BytesIO()
    torch.save(tree(), buffer, _use_new_zipfile_serialization=not legacy)
    content = bytearray(buffer.getvalue())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "module.pkl"
    path.write_bytes(content)
    try:
        found = read_module(path)
    except ValueError as error:
        assert "module.pkl" in str(error)
    else:
        assert all(isinstance(x, torch.Tensor) for x in found.values())
