"""The command, end to end on real data: digits of scikit-learn and pieces of MIDI."""

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from multimodal.cli import main
from multimodal.config_errors import shorten
from multimodal.lightning_cli import load_run
from multimodal.tokenizers.midi import write_notes

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ["--config", str(ROOT / "configs/tokenizer/digits.yaml"), "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]
PRETRAIN = ["--config", str(ROOT / "configs/pretrain/demo.yaml"), "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]


def write_files(folder: Path) -> None:
    """Write 60 digits and 20 pieces in two classes, in three splits."""
    digits = load_digits()
    generator = torch.Generator().manual_seed(0)
    for number in range(60):
        split = ("train", "train", "train", "val", "test")[number % 5]
        path = folder / "digits" / split / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15).astype(np.uint8)).resize((28, 28)).save(path)
    for number in range(20):
        split = ("train", "train", "train", "val", "test")[number % 5]
        count = 20 + number
        pitches = 60 + torch.randint(12, (count,), generator=generator)
        notes = torch.stack([torch.arange(count) * 240, pitches, torch.full((count,), 240), torch.full((count,), 80)], 1)
        path = folder / "tunes" / split / ("slow", "fast")[number % 2] / f"{number}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_notes(notes))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Files, shards and a tokenizer trained for one epoch."""
    folder = tmp_path_factory.mktemp("workshop")
    write_files(folder / "files")
    for name in ("digits", "tunes"):
        assert main(["shards", "write", str(folder / "files" / name), "--to", str(folder / "shards" / name), "--split", "folders"]) == 0
    shards = ["--data.init_args.shards", str(folder / "shards/digits"), "--data.init_args.batch_size", "12"]
    assert main(["fit", *TOKENIZER, *shards, "--run", str(folder / "tokenizer")]) == 0
    return folder


def pretrain(folder: Path, run: Path, *more: str) -> int:
    data = json.dumps([str(folder / "shards/digits"), str(folder / "shards/tunes")])
    tokenizer = ["--model.init_args.modalities.image.init_args.tokenizer.init_args.folder", str(folder / "tokenizer/tokenizer")]
    shards = ["--data.init_args.shards", data, "--data.init_args.batch_size", "8"]
    return main(["fit", *PRETRAIN, *shards, *tokenizer, "--run", str(run), *more])


def scores_of(model, data) -> dict[str, torch.Tensor]:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.test(model, datamodule=data, verbose=False)
    return trainer.callback_metrics


def metrics(run: Path) -> str:
    return (run / "metrics/version_0/metrics.csv").read_text()


def test_one_seed_gives_equal_losses_and_another_does_not(workshop, tmp_path):
    for name, seed in (("first", "3"), ("second", "3"), ("third", "4")):
        assert pretrain(workshop, tmp_path / name, "--seed_everything", seed, "--trainer.log_every_n_steps", "1") == 0
    first, second, third = (metrics(tmp_path / name) for name in ("first", "second", "third"))
    assert "val/loss/image" in first and "val/accuracy/midi_pitch" in first
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
        assert pretrain(workshop, tmp_path / f"run-{name}", "--data.init_args.shards", both) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: shard ") and f"key {key!r}" in error and f"field {field!r}" in error, error
    both = json.dumps([str(tmp_path / "shards/digits"), str(tmp_path / "shards/tunes")])
    skip = ["--data.init_args.on_error", "skip", "--data.init_args.max_bad_fraction", "0.1"]
    with pytest.warns(UserWarning, match="skip|bad|left out"):
        assert pretrain(workshop, tmp_path / "run-skip", "--data.init_args.shards", both, *skip) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.init_args.encoder.depht", "5"], "model.encoder (multimodal.nn.Encoder): Option 'depht' is not accepted"),
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch"),  # no prefix of an option is taken for it
        (["--model.init_args.encoder.dim", "abc"], "Expected a int, got abc"),
        (["--model.class_path", "multimodal.training.Nope"], "has no attribute 'Nope'"),
        (["--data.init_args.shards", "nowhere"], "nowhere/index.json does not exist"),
        (["--model.init_args.modalities.midi.init_args.masking.init_args.mask_rat", "0.1"], "Option 'mask_rat' is not accepted"),
        (["--model.init_args.modalities.image.init_args.tokenizer.init_args.folder", "nowhere"], "no tokenizer in nowhere"),
    ],
)
def test_each_mistake_ends_in_one_clear_message(workshop, tmp_path, capsys, arguments, expected):
    assert pretrain(workshop, tmp_path / "run", *arguments) in (1, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0], errors


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no run in .*config.yaml not found"):
        load_run(tmp_path)


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
