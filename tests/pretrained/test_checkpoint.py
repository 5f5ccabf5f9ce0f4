"""Weight files: what they hold is read, damage is told in one line, and nothing in them runs."""

import argparse
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from multimodal.pretrained import import_checkpoint
from multimodal.pretrained.checkpoint import read_checkpoint

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


class Evil:
    """Runs something when it is unpickled in the usual way."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor] = TENSORS) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.bin", "x.ckpt"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [(), ("model",), ("state_dict",), ("module",), ("state_dict", "model")])
def test_a_state_dict_is_found_in_its_wrappings(tmp_path, name, legacy, wrap):
    value = TENSORS
    for wrapper in wrap:
        value = {wrapper: value, "epoch": 7}
    torch.save(value, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(tmp_path / name)
    assert same(found.tensors)
    assert found.extra == ({"epoch": 7} if wrap else {})
    assert len(found.sha256) == 64


def test_plain_data_beside_the_tensors_is_accepted(tmp_path):
    beside = {"args": argparse.Namespace(lr=0.1, name="run"), "loss": np.float64(0.5), "curve": np.arange(3), "optimizer": {"lr": [0.1]}}
    torch.save({"model": TENSORS, **beside}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert same(found.tensors)
    assert found.extra["args"].lr == 0.1 and found.extra["curve"].tolist() == [0, 1, 2]


def test_numbers_of_numpy_1_are_accepted(tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": TENSORS, "loss": np.float64(0.5), "curve": np.arange(3)}, buffer, _use_new_zipfile_serialization=False)
    assert b"numpy._core.multiarray" in buffer.getvalue()
    (tmp_path / "x.pth").write_bytes(buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(tmp_path / "x.pth").extra["curve"].tolist() == [0, 1, 2]


def test_what_was_asked_for_is_told(tmp_path):
    torch.save({"model": TENSORS, "note": Evil(os.system, "true")}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"could run code, and is refused: it asks for \w+\.system$"):
        read_checkpoint(tmp_path / "x.pth")


def test_the_prefix_of_parallel_training_is_taken_off(tmp_path):
    torch.save({"model": {f"module.{name}": x for name, x in TENSORS.items()}}, tmp_path / "x.pth")
    assert same(read_checkpoint(tmp_path / "x.pth").tensors)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["root", "beside", "wrapped", "name"])
@pytest.mark.parametrize("suffix", ["pth", "bin", "pkl"])
def test_code_never_runs(tmp_path, legacy, place, suffix):
    canary, path = tmp_path / "canary", tmp_path / f"evil.{suffix}"
    evil = Evil(os.system, f"touch {canary}")
    value = {
        "root": evil,
        "beside": {"model": TENSORS, "note": evil},
        "wrapped": {"model": {**TENSORS, "x": evil}},
        "name": {evil: TENSORS},
    }[place]
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    torch.load(path, weights_only=False)  # the file does what it says where nothing holds it back
    assert canary.exists()
    canary.unlink()
    with pytest.raises(ValueError, match=rf"evil\.{suffix}.* refused"):
        import_checkpoint(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["evil.safetensors", "evil.pth"])
def test_a_plain_pickle_under_any_name_never_runs(tmp_path, name):
    canary = tmp_path / "canary"
    (tmp_path / name).write_bytes(pickle.dumps(Evil(os.system, f"touch {canary}")))
    with pytest.raises(ValueError, match=name):
        read_checkpoint(tmp_path / name)
    assert not canary.exists()


def test_archives_of_the_oldest_torch_are_refused_and_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            data = pickle.dumps({})
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"old\.pth is damaged, or was not written by torch\.save"):
        read_checkpoint(tmp_path / "old.pth")
    assert sorted(tmp_path.iterdir()) == before


def test_a_script_module_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"script\.pt"):
        read_checkpoint(tmp_path / "script.pt")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "pkl"])
def test_a_cut_off_file_is_named(tmp_path, share, suffix):
    path = tmp_path / f"cut.{suffix}"
    if suffix == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(torch.nn.Linear(3, 2) if suffix == "pkl" else TENSORS, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} is (damaged|refused)"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("data_offsets", [0, 400]),
        ("data_offsets", [-8, 24]),
        ("data_offsets", [8, 0]),
        ("shape", [2, 300]),
        ("shape", [-2, 3]),
        ("dtype", "F99"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, change, value):
    data = save(TENSORS)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["a.weight"][change] = value
    text = json.dumps(header).encode()
    (tmp_path / "lie.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    with pytest.raises(ValueError, match=r"lie\.safetensors is damaged, or no safetensors file"):
        read_checkpoint(tmp_path / "lie.safetensors")


@pytest.mark.parametrize("size", [2**63, 2**40, 2**31, 10])
def test_a_header_of_a_size_that_lies_is_refused(tmp_path, size):
    data = save(TENSORS)
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", size) + data[8:])
    with pytest.raises(ValueError, match=r"huge\.safetensors is damaged"):
        read_checkpoint(tmp_path / "huge.safetensors")


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, torch.zeros(2)])
def test_what_is_no_state_dict_is_told(tmp_path, value):
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="not a state dict"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("value", [{}, {"epoch": 3}, {"model": {}}])
def test_no_tensors(tmp_path, value):
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_folder_in_numbered_parts(tmp_path):
    for name, part in (("one", "a.weight"), ("two", "b")):
        save_file({part: TENSORS[part]}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"a.weight": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    found = read_checkpoint(tmp_path)
    assert same(found.tensors)
    assert found.config == {"model_type": "x"} and found.extra == {"preprocessor_config": {"image_mean": [0.5]}}
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(ValueError, match=r"names \['two.safetensors'\], which are not beside it"):
        read_checkpoint(tmp_path)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(TENSORS, tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"b": "../secret.safetensors"}}))
    with pytest.raises(ValueError, match="not beside it"):
        read_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": [1]}}', "\xff"])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="is not an index of weight files"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["{", "[1]", "\xff\xfe"])
def test_a_damaged_config_is_told(tmp_path, name, text):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=name):
        read_checkpoint(tmp_path)


def test_what_is_not_there_or_not_alone(tmp_path):
    with pytest.raises(ValueError, match=r"no such file or folder. Nothing is downloaded"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="holds no weight file"):
        read_checkpoint(tmp_path)
    (tmp_path / "x.zip").touch()
    with pytest.raises(ValueError, match=r"weights come as .safetensors, .pt"):
        read_checkpoint(tmp_path / "x.zip")
    for name in ("a.pth", "b.pth"):
        torch.save(TENSORS, tmp_path / name)
    with pytest.raises(ValueError, match="2 weight files: name one"):
        read_checkpoint(tmp_path)


def test_another_file_than_the_wanted_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="it is not the file you want, or it is damaged"):
        import_checkpoint(tmp_path / "x.pth", sha256="0" * 64)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_one_kind_of_error(tmp_path_factory, suffix, data):
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer)
    content = bytearray(save(TENSORS) if suffix == "safetensors" else buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path: Path = tmp_path_factory.mktemp("damage") / f"x.{suffix}"
    path.write_bytes(content)
    try:
        read_checkpoint(path)
    except ValueError as error:
        assert str(path) in str(error)


def test_a_zip_with_a_lying_storage(tmp_path):
    torch.save({"w": torch.arange(100.0)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(tmp_path / "short.pth", "w") as short:
        for info in good.infolist():
            data = good.read(info)
            short.writestr(info.filename, data[:40] if info.filename.endswith("data/0") else data)
    with pytest.raises(ValueError, match=r"short\.pth is damaged"):
        read_checkpoint(tmp_path / "short.pth")
