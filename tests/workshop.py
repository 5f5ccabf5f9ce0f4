"""What the tests of the command share: files, shards and a tokenizer, and a short pretraining on them. Not a test by itself."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from multimodal.cli import main
from multimodal.tokenizers.midi import write_notes

opened: list[str] = []  # names of the shards that were opened
sys.addaudithook(lambda event, values: opened.append(values[0]) if event == "open" and str(values[0]).endswith(".tar") else None)

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ["--config", str(ROOT / "configs/tokenizer/digits.yaml"), "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]
PRETRAIN = ["--config", str(ROOT / "configs/pretrain/demo.yaml"), "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1"]

WATCHED = (
    "--trainer.callbacks",
    json.dumps(
        [
            {"class_path": "PictureLogger"},
            *(
                {"class_path": "LabelProbe", "init_args": {"modality": x, "labels_per_class": [1, 2], "draws": 1}}
                for x in ("image", "midi")
            ),
        ]
    ),
)
"""With the recipe's pictures and probes, but of one draw; five draws take most of the time of a short run."""

UNWATCHED = ("--trainer.callbacks", "null")
"""Without them."""

BRIEF = ("--trainer.limit_train_batches", "2", *UNWATCHED)


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


def build_workshop(folder: Path) -> None:
    """Write files and shards, and train a tokenizer for one epoch."""
    write_files(folder / "files")
    for name in ("digits", "tunes"):
        assert main(["shards", "write", str(folder / "files" / name), "--to", str(folder / "shards" / name), "--split", "folders"]) == 0
    shards = ["--data.init_args.shards", str(folder / "shards/digits"), "--data.init_args.batch_size", "12"]
    assert main(["fit", *TOKENIZER, *shards, "--run", str(folder / "tokenizer")]) == 0


def pretrain(folder: Path, run: Path, *more: str) -> int:
    data = json.dumps([str(folder / "shards/digits"), str(folder / "shards/tunes")])
    tokenizer = ["--model.init_args.modalities.image.init_args.tokenizer.init_args.folder", str(folder / "tokenizer/tokenizer")]
    shards = ["--data.init_args.shards", data, "--data.init_args.batch_size", "8"]
    return main(["fit", *PRETRAIN, *shards, *tokenizer, *WATCHED, "--run", str(run), *more])
