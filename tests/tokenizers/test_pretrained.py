"""Saved tokenizers: what comes back gives equal ids, anything else is refused, and a config runs no foreign code."""

import copy
import errno
import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from multimodal.tokenizers.image import DiscreteVAE
from multimodal.tokenizers.pretrained import TokenizerLoss, TrainableTokenizer, load_tokenizer

TINY = {"num_tokens": 16, "channels": 1, "num_layers": 2, "width": 8, "codebook_dim": 8}
OTHER = {
    "num_tokens": 17,
    "channels": 3,
    "num_layers": 3,
    "width": 9,
    "codebook_dim": 9,
    "temperature": (0.9, 0.1),
    "kl_weight": 0.5,
}


class Needy(TrainableTokenizer):
    """A tokenizer from elsewhere, with a required argument and a statistic that is no parameter."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.scale = size, nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int64))

    @property
    def vocab_sizes(self):
        return (self.size,)

    def encode(self, values):
        return values % self.size

    def training_loss(self, values, progress):
        return TokenizerLoss(self.scale, values, {})


def make_tokenizer(**settings) -> DiscreteVAE:
    torch.manual_seed(0)
    return DiscreteVAE(**TINY | settings)


def images() -> torch.Tensor:
    return torch.randint(256, (4, 1, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture
def saved(tmp_path):
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def edit_config(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("load", [load_tokenizer, DiscreteVAE.from_pretrained])
@pytest.mark.parametrize("settings", [{}, {"temperature": (0.5, 0.25), "kl_weight": 0.0, "num_layers": 1}])
def test_round_trip(tmp_path, load, settings):
    tokenizer = make_tokenizer(**settings)
    folder = tmp_path / "deep" / "folder"
    tokenizer.save_pretrained(folder)
    loaded = load(str(folder))
    assert torch.equal(loaded.encode(images()), tokenizer.encode(images()))
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert not loaded.training
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert (again / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_only_whole_files_are_left(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_a_failed_save_leaves_the_old_tokenizer(saved, monkeypatch):
    before = load_tokenizer(str(saved)).fingerprint()
    monkeypatch.setattr("multimodal.tokenizers.pretrained.json.dumps", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_tokenizer(width=4).save_pretrained(saved)
    monkeypatch.undo()
    assert load_tokenizer(str(saved)).fingerprint() == before


@pytest.mark.parametrize("setting", OTHER)
def test_fingerprint_changes_with_any_setting(setting):
    assert make_tokenizer(**{setting: OTHER[setting]}).fingerprint() != make_tokenizer().fingerprint()


@pytest.mark.parametrize("name", dict(make_tokenizer().state_dict()))
def test_fingerprint_changes_with_any_weight(name):
    tokenizer = make_tokenizer()
    before = tokenizer.fingerprint()
    weight = tokenizer.state_dict()[name].flatten()
    weight[-1] = torch.nextafter(weight[-1], torch.tensor(torch.inf))  # one bit
    assert tokenizer.fingerprint() != before


def test_fingerprint_does_not_follow_the_mode_or_whether_a_default_is_named():
    tokenizer = make_tokenizer(temperature=(1.0, 0.5))
    assert tokenizer.train().fingerprint() == tokenizer.eval().fingerprint()
    assert tokenizer.fingerprint() == make_tokenizer(temperature=(1.0, 0.5), kl_weight=1e-3).fingerprint()  # the default


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))], ids=["copy", "pickle"])
def test_copies_are_equal(duplicate):
    for tokenizer in (make_tokenizer(), Needy(7)):
        assert duplicate(tokenizer).fingerprint() == tokenizer.fingerprint()


def test_a_class_from_elsewhere_loads_by_its_own_name_only(tmp_path):
    tokenizer = Needy(size=5)
    tokenizer.seen[1] = 4
    tokenizer.save_pretrained(tmp_path)
    assert Needy.from_pretrained(tmp_path).seen.tolist() == [0, 4, 0]
    with pytest.raises(ValueError, match=r"not of multimodal.tokenizers.*from_pretrained"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(ValueError, match=r"holds a .*Needy, not a multimodal.tokenizers.image.dvae.DiscreteVAE"):
        DiscreteVAE.from_pretrained(tmp_path)


@pytest.mark.parametrize("size", [0, 6, 100, 2000])
def test_cut_weights_are_refused(saved, size):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model.safetensors does not match"):
        load_tokenizer(str(saved))


def test_edited_weights_are_refused(saved):
    weights = saved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="fingerprint differs"):
        load_tokenizer(str(saved))


def test_weights_of_another_tokenizer_are_refused(saved, tmp_path):
    torch.manual_seed(9)
    DiscreteVAE(**TINY).save_pretrained(tmp_path / "same_shape")
    make_tokenizer(width=4).save_pretrained(tmp_path / "other_shape")
    for name, message in (("same_shape", "fingerprint differs"), ("other_shape", "size mismatch")):
        (saved / "model.safetensors").write_bytes((tmp_path / name / "model.safetensors").read_bytes())
        with pytest.raises(ValueError, match=message):
            load_tokenizer(str(saved))


def test_edited_settings_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())["config"]
    for changed, message in (
        (config | {"kl_weight": 2.0}, "fingerprint differs"),
        (config | {"num_tokens": 8}, "size mismatch"),
        (config | {"num_tokens": "many"}, "does not fit"),
        (config | {"depth": 3}, "does not fit .* unexpected keyword argument 'depth'"),
        ([1, 2], "does not fit"),
    ):
        edit_config(saved, config=changed)
        with pytest.raises(ValueError, match=message):
            load_tokenizer(str(saved))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ValueError, match=f"no tokenizer in .*: {name} not found"):
        load_tokenizer(str(saved))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config.json not found.*multimodal fit"):
        load_tokenizer(str(tmp_path / "none"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"text"', b"{}", b'{"class": "a"}', b"\xff\xfe\x00"])
def test_a_damaged_config_is_refused(saved, content):
    (saved / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="not the config of a tokenizer"):
        load_tokenizer(str(saved))


@pytest.mark.parametrize(
    "path",
    [
        "multimodal.tokenizers.image.dvae.Missing",
        "multimodal.tokenizers.missing.Thing",
        "multimodal.tokenizers.pretrained.load_tokenizer",
        "multimodal.tokenizers.pretrained.Path",
        "multimodal.tokenizers.pretrained.PretrainedTokenizer",
        "multimodal.tokenizers.image..DiscreteVAE",
        "DiscreteVAE",
        "",
        None,
        7,
    ],
)
def test_a_class_that_is_no_tokenizer_is_refused(saved, path):
    edit_config(saved, **{"class": path})
    with pytest.raises(ValueError, match=r"holds a|names|does not fit"):
        load_tokenizer(str(saved))


def test_a_config_imports_nothing_from_elsewhere(saved, tmp_path):
    (tmp_path / "intruder.py").write_text("open('touched', 'w')")
    paths = ["os.system", "antigravity.Thing", "multimodal.tokenizers_evil.Thing", "multimodal.cli.main", "intruder.Thing"]
    for number, path in enumerate(paths):
        shutil.copytree(saved, tmp_path / str(number))
        edit_config(tmp_path / str(number), **{"class": path})
    script = f"""
import sys
from multimodal.tokenizers.pretrained import load_tokenizer
before = set(sys.modules)
for number in range({len(paths)}):
    try:
        load_tokenizer(str(number))
    except ValueError as error:
        print(error)
print(sorted(set(sys.modules) - before))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    lines = result.stdout.splitlines()
    assert len(lines) == len(paths) + 1, result.stderr
    assert all(f"{path}, which is not of multimodal.tokenizers." in line for path, line in zip(paths, lines, strict=False))
    assert lines[-1] == "[]"
    assert not (tmp_path / "touched").exists()


def test_a_full_disk_leaves_the_tokenizer_that_was_there(tmp_path, monkeypatch):
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def no_space(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/model.safetensors'"):
        make_tokenizer(num_tokens=17).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert load_tokenizer(str(tmp_path)).fingerprint() == tokenizer.fingerprint()
