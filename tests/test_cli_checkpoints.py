"""Checkpoints that the command goes on from: those that do not fit, are cut off or hold code, and the one before."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from multimodal.lightning_cli import load_run
from tests.workshop import BRIEF, opened, pretrain


@pytest.fixture(scope="module")
def pretrained(workshop):
    opened.clear()
    assert pretrain(workshop, workshop / "pretrained", *BRIEF) == 0
    assert opened  # so the tests below would notice
    return workshop / "pretrained/checkpoints/last.ckpt"


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def edited(path: Path, edit, to: Path) -> Path:
    checkpoint = torch.load(path, weights_only=True)
    edit(checkpoint)
    torch.save(checkpoint, to)
    return to


def without_head(checkpoint):
    del checkpoint["state_dict"]["modalities.image.head.proj.bias"]


CHECKPOINTS = {
    "another width": (lambda path, to: path, ["--model.init_args.encoder.dim", "64"], r"of another shape: encoder\.\S+ \(\d+"),
    "fewer layers": (lambda path, to: path, ["--model.init_args.encoder.depth", "2"], r"not in the model: encoder\.blocks\.2\.\S+"),
    "missing": (
        lambda path, to: edited(path, without_head, to),
        [],
        r"1 missing: modalities\.image\.head\.proj\.bias\. Nothing was loaded",
    ),
    "later": (lambda path, to: edited(path, lambda c: c["multimodal"].update(format=99), to), [], "has format 99, written by multimodal"),
    "other names": (
        lambda path, to: edited(path, lambda c: c["multimodal"]["tokenizers"].pop("midi"), to),
        [],
        "has the modalities image; the model has image, midi",
    ),
    "other ids": (
        lambda path, to: edited(path, lambda c: c["multimodal"]["tokenizers"].update(image="0" * 64), to),
        [],
        "trained with another tokenizer for 'image'",
    ),
    "a tokenizer's": (
        lambda path, to: path.parents[2] / "tokenizer/checkpoints/last.ckpt",
        [],
        r"is of a \S+TokenizerTraining, not of a \S+",
    ),
    "cut off": (lambda path, to: to.write_bytes(path.read_bytes()[:-1000]) and to, [], "is no checkpoint, or is cut off"),
    "a config": (lambda path, to: path.parents[1] / "config.yaml", [], "is no checkpoint, or is cut off"),
    "code": (lambda path, to: edited(path, lambda c: c.update(a=Touch(to.parent / "canary")), to), [], r"refused: .*posix\.system"),
    "code in settings": (
        lambda path, to: edited(path, lambda c: c.update(hyper_parameters={"a": Touch(to.parent / "canary")}), to),
        [],
        r"refused: .*posix\.system",
    ),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_does_not_fit_ends_in_one_message_before_data_is_read(workshop, pretrained, tmp_path, capsys, kind):
    make, arguments, expected = CHECKPOINTS[kind]
    path = make(pretrained, tmp_path / "edited.ckpt")
    opened.clear()
    assert pretrain(workshop, tmp_path / "run", *arguments, "--ckpt_path", str(path)) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(expected, errors[0]), errors
    assert str(path) in errors[0]
    assert opened == [] and not (tmp_path / "canary").exists()


def test_settings_in_a_checkpoint_change_nothing(workshop, pretrained, tmp_path):
    saved = edited(pretrained, lambda c: c.update(hyper_parameters={"encoder": {"depth": 1}}), tmp_path / "edited.ckpt")
    assert pretrain(workshop, tmp_path / "run", "--ckpt_path", str(saved), "--trainer.max_epochs", "2", *BRIEF) == 0
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


def test_the_checkpoint_before_is_used_when_the_last_cannot_be_read(workshop, pretrained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(pretrained.parents[1], run)
    last = run / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=r"last\.ckpt .*cut off\. Going on from \S+epoch-0000\.ckpt instead"):
        assert pretrain(workshop, run, "--ckpt_path", "last", "--trainer.max_epochs", "2", *BRIEF) == 0
    assert sorted(path.name for path in last.parent.iterdir()) == ["epoch-0000.ckpt", "epoch-0001.ckpt", "last.ckpt"]
    assert torch.load(last, weights_only=True)["epoch"] == 1
    model, _ = load_run(run)
    assert model.encoder.dim == 128
