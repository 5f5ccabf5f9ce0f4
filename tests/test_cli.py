"""The command, end to end on real data: digits of scikit-learn and pieces of MIDI."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from multimodal.cli import main
from multimodal.config_errors import shorten
from multimodal.lightning_cli import load_run
from tests.workshop import ROOT, TOKENIZER, UNWATCHED, opened, pretrain


def scores_of(model, data) -> dict[str, torch.Tensor]:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.test(model, datamodule=data, verbose=False)
    return trainer.callback_metrics


def losses(run: Path) -> list[dict[str, str]]:
    """Return what was logged of training and validation, without what callbacks logged."""
    with (run / "metrics/version_0/metrics.csv").open() as file:
        rows = [{name: x for name, x in row.items() if x and name.startswith(("train/", "val/"))} for row in csv.DictReader(file)]
    return [row for row in rows if row]


def test_one_seed_gives_equal_losses_watched_or_not_and_another_does_not(workshop, tmp_path):
    for name, seed, more in (("first", "3", ()), ("second", "3", UNWATCHED), ("third", "4", UNWATCHED)):
        assert pretrain(workshop, tmp_path / name, "--seed_everything", seed, "--trainer.log_every_n_steps", "1", *more) == 0
    first, second, third = (losses(tmp_path / name) for name in ("first", "second", "third"))
    assert {"val/loss/image", "val/accuracy/midi_pitch", "train/loss"} <= {name for row in first for name in row}
    assert first == second
    assert first != third


def test_a_run_leaves_what_the_report_needs_and_can_be_tested_and_continued(workshop, tmp_path, capsys):
    run = tmp_path / "run"
    assert pretrain(workshop, run) == 0
    for name in ("config.yaml", "checkpoints/last.ckpt", "probe.csv", "pictures/image", "pictures/midi"):
        assert (run / name).exists(), name

    saved = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    assert main(["test", *saved]) == 0
    scores = json.loads((run / "test.json").read_text())
    assert scores["test/tokens/image"] > 0 and 0 <= scores["test/accuracy/midi_pitch"] <= 1

    assert main(["predict", *saved]) == 0
    features = np.load(run / "predictions/image.npy")
    keys = (run / "predictions/image.keys.txt").read_text().split()
    assert features.shape == (12, 128) and len(set(keys)) == 12

    assert main(["report", str(run), "--tokenizer-run", str(workshop / "tokenizer")]) == 0
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 and "labels per class" in page

    model, data = load_run(run)
    again = {name: value.item() for name, value in scores_of(model, data).items()}
    assert again == pytest.approx(scores)

    assert pretrain(workshop, run) == 1  # the folder holds a run
    assert "already holds a run" in capsys.readouterr().err
    assert pretrain(workshop, run, "--trainer.max_epochs", "2", "--ckpt_path", "last") == 0
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


def test_bad_files_are_named_and_can_be_skipped(workshop, tmp_path, capsys):
    files = tmp_path / "files"
    shutil.copytree(workshop / "files", files)
    picture, piece = sorted(files.glob("digits/train/*/*.png"))[3], sorted(files.glob("tunes/train/*/*.mid"))[2]
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    piece.write_bytes(piece.read_bytes()[:30])
    for name, file, field in (("digits", picture, "png"), ("tunes", piece, "mid")):
        shards = tmp_path / "shards" / name
        assert main(["shards", "write", str(files / name), "--to", str(shards), "--split", "folders"]) == 0
        key = f"{file.parent.name}/{file.stem}"
        whole_ones = workshop / "shards" / ("tunes" if name == "digits" else "digits")
        both = json.dumps([str(shards), str(whole_ones)])
        assert pretrain(workshop, tmp_path / f"run-{name}", "--data.init_args.shards", both, *UNWATCHED) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: shard ") and f"key {key!r}" in error and f"field {field!r}" in error, error
    both = json.dumps([str(tmp_path / "shards/digits"), str(tmp_path / "shards/tunes")])
    skip = ["--data.init_args.on_error", "skip", "--data.init_args.max_bad_fraction", "0.1"]
    with pytest.warns(UserWarning, match="skip|bad|left out"):
        assert pretrain(workshop, tmp_path / "run-skip", "--data.init_args.shards", both, *skip, *UNWATCHED) == 0


def part(class_path: str, **settings) -> str:
    return json.dumps({"class_path": class_path, "init_args": settings})


MODALITY = "--model.init_args.modalities."
MASKING = f"{MODALITY}image.init_args.masking.init_args"
MISTAKES = {
    "typo in a model": (["--model.init_args.encodr", "x"], "Option 'encodr' is not accepted"),
    "typo in an encoder": (
        ["--model.init_args.encoder.depht", "5"],
        "model.encoder (multimodal.nn.Encoder): Option 'depht' is not accepted",
    ),
    "typo in a modality": ([f"{MODALITY}midi.init_args.masking.init_args.mask_rat", "0.1"], "Option 'mask_rat' is not accepted"),
    "typo in the data": (["--data.init_args.batchsize", "8"], "Option 'batchsize' is not accepted"),
    "abbreviation": (["--trainer.max_epoch", "3"], "--trainer.max_epoch"),  # no prefix of an option is taken for it
    "wrong type": (["--model.init_args.encoder.dim", "abc"], "Expected a int, got abc"),
    "unknown class": (["--model.class_path", "multimodal.training.Nope"], "has no attribute 'Nope'"),
    "negative width": (["--model.init_args.encoder.dim", "-128"], "dim must be at least 1, got -128"),
    "negative batch": (["--data.init_args.batch_size", "-8"], "batch_size"),
    "negative epochs": (["--trainer.max_epochs", "-5"], "`max_epochs` must be a non-negative integer or -1. You passed in -5"),
    "no end": (["--trainer.max_epochs", "-1"], "the schedule needs an end of the run: set max_epochs (it is -1) or max_steps"),
    "negative learning rate": (["--model.init_args.optimizer.init_args.lr", "-1"], "Invalid learning rate: -1"),
    "width and heads": (["--model.init_args.encoder.num_heads", "7"], "dim must be a multiple of num_heads, got dim 128 and num_heads 7"),
    "patches and ids": (
        [f"{MODALITY}image.init_args.embed.init_args.patch_size", "7"],
        "the parts of modality 'image' do not fit each other: DiscreteVAE gives 49 ids where PatchEmbed gives 16 tokens",
    ),
    "grid and patches": (
        [f"{MODALITY}image.init_args.renderer.init_args.grid", "[5, 5]"],
        "the renderer's grid (5, 5) does not fit an image of 49 tokens: set the grid of the PatchGridRenderer to",
    ),
    "vocabularies": (
        [f"{MODALITY}midi.init_args.embed", part("multimodal.tokenizers.midi.CompoundEmbed", vocab_sizes=[4, 18, 88, 60])],
        "the embedding has vocab_sizes (4, 18, 88, 60): set them to its tokenizer's, (4, 18, 88, 66)",
    ),
    "masks": (
        [f"{MODALITY}midi.init_args.embed", part("multimodal.tokenizers.midi.CompoundEmbed", mask_ids=[3, 17, 87, 64])],
        "the embedding shows the ids (3, 17, 87, 64) at hidden tokens: set mask_ids to its tokenizer's, (3, 17, 87, 65)",
    ),
    "head weights": (
        [f"{MODALITY}midi.init_args.head", part("multimodal.nn.PredictionHead", field_weights=[1, 2])],
        "field_weights has 2 entries for 4 fields",
    ),
    "share": ([f"{MASKING}.mask_ratio", "1.5"], "mask_ratio must be in (0, 1), got 1.5"),
    "no shards": (["--data.init_args.shards", "nowhere"], "nowhere/index.json does not exist"),
    "no tokenizer": ([f"{MODALITY}image.init_args.tokenizer.init_args.folder", "nowhere"], "no tokenizer in nowhere"),
    "no such split": (["--data.init_args.train_split", "trian"], "no samples of split 'trian'"),
    "no such checkpoint": (["--ckpt_path", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
    "no such modality to probe": (["--trainer.callbacks+=LabelProbe", "--trainer.callbacks.modality", "smell"], "no modality 'smell'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_ends_in_one_clear_message_before_data_is_read(workshop, tmp_path, capsys, mistake):
    arguments, expected = MISTAKES[mistake]
    opened.clear()
    assert pretrain(workshop, tmp_path / "run", *arguments) in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0], errors
    assert opened == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["encoder.init_args.folder", "nowhere"], "no model in nowhere: config.json not found."),
        (["encoder", part("multimodal.nn.Encoder", dim=-8)], "dim must be at least 1, got -8."),
    ],
)
def test_what_a_config_names_and_cannot_be_built_is_a_mistake_in_the_config(tmp_path, capsys, arguments, expected):
    recipe = ["--config", str(ROOT / "configs/finetune/digits.yaml"), "--run", str(tmp_path / "run")]
    assert main(["fit", *recipe, f"--model.init_args.{arguments[0]}", arguments[1]]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Seed set to")]
    assert errors == [f"error: {expected}"]


@pytest.mark.parametrize("level", ["file", "part"])
def test_a_key_given_twice_is_refused(workshop, tmp_path, capsys, level):
    twice = tmp_path / "twice.yaml"
    if level == "file":
        modality = str(ROOT / "configs/modality/digits.yaml")
        twice.write_text(f"model:\n  init_args:\n    modalities:\n      image: {modality}\n      image: {modality}\n")
        assert pretrain(workshop, tmp_path / "run", "--config", str(twice)) in (1, 2)
        assert "key 'image' is given twice, in lines 4 and 5" in capsys.readouterr().err
    else:
        twice.write_text("dim: 16\ndim: 32\n")
        assert pretrain(workshop, tmp_path / "run", "--model.init_args.encoder", str(twice)) in (1, 2)
        assert "model.encoder (multimodal.training.MaskedPretraining): key 'dim' is given twice" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("size", ["16k", "96k", "600k"])  # full at the config, at the logs, at a checkpoint
def test_a_full_disk_ends_the_run_with_its_path(workshop, tmp_path, capsys, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        shards = ["--data.init_args.shards", str(workshop / "shards/digits"), "--data.init_args.batch_size", "12"]
        assert main(["fit", *TOKENIZER, *shards, "--run", str(disk / "run"), "--trainer.log_every_n_steps", "1"]) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and str(disk / "run") in errors[0] and "No space left on device" in errors[0], errors
        assert not list(disk.rglob("*.ckpt*")) and not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_run_that_is_told_to_end_can_be_continued(workshop, tmp_path):
    run = tmp_path / "run"
    shards = ["--data.init_args.shards", str(workshop / "shards/digits"), "--data.init_args.batch_size", "4"]
    command = [sys.executable, "-m", "multimodal", "fit", *TOKENIZER[:-1], "100000", *shards, "--run", str(run)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    started = time.monotonic()
    while not (run / "checkpoints/last.ckpt").exists():
        assert process.poll() is None and time.monotonic() - started < 60, (tmp_path / "log").read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    assert process.wait(30) == 143
    assert time.monotonic() - told < 30
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    epochs = str(checkpoint["epoch"] + 2)
    assert main(["fit", *TOKENIZER[:-1], epochs, *shards, "--run", str(run), "--ckpt_path", "last"]) == 0
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] > checkpoint["global_step"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no run in .*config.yaml not found"):
        load_run(tmp_path)


def test_a_run_whose_config_names_a_class_that_is_not_there_is_one_short_error(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    config = {
        "model": {"class_path": "multimodal.training.MaskedPretraining", "init_args": {"encoder": {"class_path": "elsewhere.Encoder"}}}
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.yaml cannot be built: .*No module named 'elsewhere'") as caught:
        load_run(tmp_path)
    assert len(str(caught.value)) < 500 and caught.value.__cause__ is None


def test_unknown_commands_are_refused(capsys):
    assert main(["fitt"]) == 2
    assert "unknown command 'fitt'" in capsys.readouterr().err


def test_help_answers_at_once_and_names_every_command():
    started = time.process_time()
    result = subprocess.run([sys.executable, "-X", "importtime", "-m", "multimodal", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and time.process_time() - started < 1
    for command in ("fit", "validate", "test", "predict", "shards write", "shards inspect", "report"):
        assert command in result.stdout
    assert not any(name in result.stderr for name in ("torch", "lightning", "numpy"))


def test_the_shortened_error_is_the_innermost_reason():
    lines = (
        'Parser key "model":',
        "Errors:",
        "- Problem with given class_path 'a.B':",
        'Parser key "c":',
        "Option 'd' is not accepted. Got value: 3",
    )
    message = "\n".join("  " * depth + line for depth, line in enumerate(lines))
    assert shorten(message) == "model.c (a.B): Option 'd' is not accepted, got 3"
    assert shorten("plain") == "plain"


def test_configs_take_no_code(workshop, tmp_path, capsys):
    canary = tmp_path / "canary"
    for path in ("os.system", "subprocess.Popen"):
        mask = json.dumps({"class_path": path, "init_args": {"command": f"touch {canary}"}})
        assert pretrain(workshop, tmp_path / "run", "--model.init_args.modalities.image.init_args.masking", mask) in (1, 2)
    assert not canary.exists()


def test_bytes_of_an_image_written_to_shards_are_the_file(workshop):
    import tarfile

    shard = next((workshop / "shards/digits").rglob("*.tar"))
    with tarfile.open(shard) as tar:
        member = next(m for m in tar if m.name.endswith(".png"))
        assert Image.open(io.BytesIO(tar.extractfile(member).read())).size == (28, 28)
