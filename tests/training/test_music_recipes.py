"""The recipes of fine-tuning on music: built as published, and run from MIDI files to predictions by the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn

from multimodal.cli import main
from multimodal.lightning_cli import _command
from multimodal.pretrained import ModelSettings, PretrainedModel
from multimodal.pretrained.settings import part
from multimodal.tokenizers.midi import NoteLabelTransform, OctupleTokenizer, Score, read_score, write_score
from multimodal.training.optimization import optimization, parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore:LightningCLI.s args parameter")

CONFIGS = Path(__file__).resolve().parents[2] / "configs/finetune"
MIDI = "multimodal.tokenizers.midi."
# name: batch, most epochs, patience, notes of a window, classes, fields of a note
PUBLISHED = {
    "music_composer": (12, 10, 3, 512, 8, 4),
    "music_emotion": (8, 50, 50, 1024, 4, 8),
    "music_melody": (12, 10, 3, 512, 3, 4),
    "music_velocity": (12, 10, 3, 512, 6, 4),
}
CLASSES = {"slow": 960, "fast": 240}
"""Label of a piece -> ticks from note to note."""
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.callbacks=null", "--data.init_args.num_workers=0"]


def save_model(folder: Path, octuple: bool = False) -> str:
    """Save a small model of pretraining."""
    sizes = {"vocab_sizes": list(OctupleTokenizer().vocab_sizes)} if octuple else {}
    embed = part(MIDI + "CompoundEmbed", field_dim=8, **sizes)
    encoder = part("multimodal.nn.Encoder", dim=16, depth=2, num_heads=2)
    PretrainedModel(ModelSettings(encoder, {"midi": embed})).save_pretrained(folder)
    return str(folder)


def given(name: str, model: str, run: Path, *more: str) -> list[str]:
    """Return the arguments of a recipe that starts from a model."""
    loaded = [f"--model.init_args.{at}.init_args.folder={model}" for at in ("encoder", "modalities.midi.init_args.embed")]
    return ["--config", str(CONFIGS / f"{name}.yaml"), *loaded, f"--run={run}", "--trainer.accelerator=cpu", *more]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(tmp_path, name):
    batch, epochs, patience, notes, classes, fields = PUBLISHED[name]
    command = _command(given(name, save_model(tmp_path / "model", fields == 8), tmp_path), run=False)
    model, trainer = command.model, command.trainer
    assert (command.datamodule.batch_size, trainer.max_epochs, trainer.gradient_clip_val) == (batch, epochs, 3.0)
    (stopping,) = (callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping))
    assert (stopping.patience, stopping.mode) == (patience, "max")

    built = optimization(parameter_groups(model, None, 2), model.make_optimizer, model.make_schedule, 20)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}
    rates = set()
    for _ in range(20):
        rates |= {group["lr"] for group in optimizer.param_groups}
        optimizer.step()
        schedule.step()
    assert rates == {2e-5}  # constant

    assert {(block.attn.dropout, block.mlp.drop.p) for block in model.encoder.blocks} == {(0.1, 0.1)}
    transform = model.transforms["midi"]
    music = transform.music if isinstance(transform, NoteLabelTransform) else transform
    assert music.max_notes == notes and len(music.tokenizer.vocab_sizes) == fields
    head = model.head if isinstance(transform, NoteLabelTransform) else model.heads["label"]
    assert head.num_classes == classes and isinstance(head.hidden[1], nn.ReLU) and head.proj.in_features == 256
    if isinstance(transform, NoteLabelTransform):
        assert head.drop.p == 0.1 and head.hidden[0].in_features == 16
    else:
        assert (head.pooling.inner.out_features, head.pooling.outer.out_features, head.drop.p) == (128, 4, 0.0)
        assert music.num_views > 1 and stopping.monitor == "val/view_accuracy"
    hiding = model.modalities["midi"].hiding
    if name == "music_emotion":
        assert (hiding.masking.mask_ratio, hiding.corruption.mask, hiding.corruption.replace) == (0.15, 0.8, 0.0)
        assert not hiding.in_evaluation and music.transpose == 11
    else:
        assert hiding is None


def piece(number: int, tracks: tuple[str, ...] = ("Melody", "Left")) -> bytes:
    """Two tracks, one above the other; slow pieces are even, fast ones odd."""
    draw = torch.Generator().manual_seed(number)
    count, step = 40 + 5 * (number % 4), list(CLASSES.values())[number % 2]
    place, track = torch.arange(count), torch.randint(2, (count,), generator=draw)
    pitch = torch.randint(50, 60, (count,), generator=draw) + 20 * (1 - track)
    columns = [place * step, pitch, torch.full_like(place, 200), torch.randint(1, 127, (count,), generator=draw), 0 * place, track]
    return write_score(Score(torch.zeros(0, 6, dtype=torch.int64), track_names=tracks).with_notes(torch.stack(columns, 1)))


def write(folder: Path, labels: dict[str, object] | None = None, **more) -> str:
    """Write 20 pieces in three splits, maybe with files of labels, as shards."""
    for number in range(20):
        split = ("train", "train", "train", "val", "test")[number % 5]
        path = folder / "files" / split / list(CLASSES)[number % 2] / f"{number}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(piece(number, **more))
        if labels is not None:
            notes = read_score(path.read_bytes()).notes
            made = ["high" if pitch >= 70 else "low" for pitch in notes[:, 1].tolist()]
            path.with_suffix(".notes.json").write_text(json.dumps(labels.get(str(number), made)))
    pattern = ["--field-pattern", r"(?P<key>[^.]+)[.](?P<field>.+)"]  # .notes.json is one field
    assert main(["shards", "write", str(folder / "files"), "--to", str(folder / "shards"), "--split", "folders", *pattern]) == 0
    return str(folder / "shards")


def fit(name: str, folder: Path, shards: str, *more: str) -> int:
    own = [*QUIET, f"--data.init_args.shards={shards}", "--trainer.max_epochs=1", *more]
    return main(["fit", *given(name, save_model(folder / "model"), folder / "run", *own)])


def predict(folder: Path) -> Path:
    saved = ["--config", str(folder / "run/config.yaml"), "--ckpt_path", str(folder / "run/checkpoints/last.ckpt")]
    assert main(["predict", *saved]) == 0
    return folder / "run/predictions"


def test_pieces_are_told_from_their_windows_by_the_command(tmp_path):
    sizes = ["--model.init_args.heads.label.init_args.num_classes=2"]
    music = "--model.init_args.modalities.midi.init_args.transform.init_args."
    assert fit("music_composer", tmp_path, write(tmp_path), *sizes, f"{music}max_notes=16", f"{music}num_windows=3") == 0
    (logged,) = (tmp_path / "run/metrics").rglob("metrics.csv")
    last = {name: float(x) for row in csv.DictReader(logged.open()) for name, x in row.items() if name.startswith("val/") and x}
    assert last["val/samples"] == 4 and last["val/views"] == 12
    assert 0 <= last["val/view_accuracy"] <= 1 and last["val/view_loss"] != last["val/loss"]
    found = predict(tmp_path)
    shares, guesses = np.load(found / "label.npy"), np.load(found / "label_ids.npy")
    assert shares.shape == (4, 2) and guesses.tolist() == shares.argmax(1).tolist()
    assert sorted((found / "label.keys.txt").read_text().split()) == sorted(f"{list(CLASSES)[n % 2]}/{n}" for n in (4, 9, 14, 19))


def test_notes_are_told_by_the_command(tmp_path):
    shards = write(tmp_path, tracks=("MELODY", "PIANO"))
    more = "--model.init_args.modalities.midi.init_args.transform.init_args.music.init_args.max_notes=16"
    assert fit("music_melody", tmp_path, shards, more) == 0
    files = sorted(predict(tmp_path).rglob("*.npy"))
    assert len(files) == 4
    for path in files:
        guesses = np.load(path)
        assert guesses.dtype == np.int16 and len(guesses) == 40 + 5 * (int(path.stem) % 4)
        assert set(guesses.tolist()) <= {0, 1, 2}


def with_files() -> list[str]:
    """Return the settings of a transform that reads files of labels."""
    reader = {"class_path": MIDI + "NoteFileLabels", "init_args": {"classes": ["high", "low"]}}
    at = "--model.init_args.modalities.midi.init_args.transform.init_args."
    return [f"{at}labels={json.dumps(reader)}", f"{at}music.init_args.max_notes=16", "--model.init_args.head.init_args.num_classes=2"]


def test_labels_of_notes_come_from_files_beside_the_pieces(tmp_path):
    assert fit("music_velocity", tmp_path, write(tmp_path, labels={}), *with_files()) == 0
    guesses = [np.load(path) for path in sorted(predict(tmp_path).rglob("*.npy"))]
    assert sorted(len(x) for x in guesses) == [40, 45, 50, 55] and set(np.concatenate(guesses).tolist()) <= {0, 1}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["high"], "field 'notes.json': there are 1 labels for the 45 notes of the MIDI file, drums included"),
        (["loud"] * 45, "field 'notes.json': entry 1 has the unknown class 'loud'; classes are high, low"),
    ],
    ids=["a wrong number", "an unknown class"],
)
def test_a_file_of_labels_that_does_not_fit_is_named(tmp_path, capsys, labels, message):
    shards = write(tmp_path, labels={"5": labels})
    assert fit("music_velocity", tmp_path, shards, *with_files()) != 0
    error = " ".join(capsys.readouterr().err.split())
    assert message in error and "fast/5" in error


def test_pieces_without_the_named_tracks_are_named(tmp_path, capsys):
    assert fit("music_melody", tmp_path, write(tmp_path, tracks=("Right", "Left"))) != 0
    error = " ".join(capsys.readouterr().err.split())
    assert "none of the tracks ['melody', 'bridge', 'piano'] is among the 2 tracks with notes: 'Right', 'Left'" in error


def test_pieces_without_labels_are_nothing_to_learn_from(tmp_path, capsys):
    for number in range(6):
        path = tmp_path / "files" / f"{number}.mid"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(piece(number))
    assert main(["shards", "write", str(tmp_path / "files"), "--to", str(tmp_path / "shards"), "--split", "train=0.5,val=0.5"]) == 0
    assert fit("music_composer", tmp_path, str(tmp_path / "shards")) != 0
    assert "head 'label' has nothing to learn" in " ".join(capsys.readouterr().err.split())
    assert fit("music_velocity", tmp_path, str(tmp_path / "shards"), *with_files()) != 0
    assert "do the shards of the training split hold label files in a field csv, notes.csv, notes.json?" in " ".join(
        capsys.readouterr().err.split()
    )
