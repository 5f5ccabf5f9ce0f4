"""Fine-tune an encoder on some labelled films, for one task."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.moving_digits.data import MODALITY, TASKS, RandomBatches, film_transform, load, whole
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder, LayerNorm, SinCosPosition3d
from multimodal.pretrained import load_embed, load_encoder
from multimodal.tokenizers.video import TubeletEmbed
from multimodal.training import FineTuning, FusedAdamW, WarmupCosine


@dataclass(frozen=True)
class Setting:
    """How long and how fast to fine-tune.

    Args:
        steps: optimizer steps.
        batch_size: films of a step.
        lr: highest learning rate, of the head.
        layer_decay: learning rate of a layer as a share of the next one's, for encoders that were trained before.
    """

    steps: int
    batch_size: int = 32
    lr: float = 2e-3
    layer_decay: float = 0.8


SETTINGS = {300: Setting(500), 1000: Setting(1000), 3000: Setting(1500)}
"""Labelled films -> how to fine-tune."""


def new_parts() -> tuple[Encoder, Callable[[int], TubeletEmbed]]:
    """Return an encoder that was not trained, of the size of the recipe's, and what builds its embedding."""
    embed = partial(TubeletEmbed, tubelet_size=4, patch_size=4, channels=1, mean=(0.2,), std=(0.35,), position=SinCosPosition3d)
    return Encoder(128, 4, 4), embed


def accuracy(model: Path | None, data: Path, task: str, num_labels: int, seed: int) -> tuple[float, float]:
    """Return the accuracy on the 1,000 test films, and the seconds that fine-tuning took.

    Args:
        model: folder of a pretrained model; None: from scratch.
        data: folder of the films.
        task: one of ``TASKS``.
        num_labels: the first so many films of the training split, whose classes take turns, are learned from.
        seed: of new weights and of the batches.
    """
    L.seed_everything(seed, verbose=False)
    clips, labels = load(data, "train")
    setting = SETTINGS[num_labels]
    encoder, embed = new_parts() if model is None else (load_encoder(str(model)), load_embed(str(model), MODALITY))
    training = FineTuning(
        encoder,
        {MODALITY: partial(Input, transform=film_transform(), embed=embed)},
        {"label": partial(ClassificationHead, num_classes=TASKS[task], norm=LayerNorm)},
        label_smoothing=0.1,
        optimizer=partial(FusedAdamW, lr=setting.lr, weight_decay=0.05),
        schedule=partial(WarmupCosine, warmup=0.1, final=0.0),
        layer_decay=None if model is None else setting.layer_decay,
    )
    batches = RandomBatches(clips[:num_labels], labels[task][:num_labels], setting.batch_size, seed)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=setting.steps,
        gradient_clip_val=3.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="bf16-mixed",
    )
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training, DataLoader(batches, batch_size=None))
    seconds = time.monotonic() - started
    test_clips, test_labels = load(data, "test")
    return _score(training, test_clips, test_labels[task]), seconds


@torch.no_grad()
def _score(training: FineTuning, clips: Tensor, labels: Tensor) -> float:
    training.eval()
    right = [(training(batch)["label"].argmax(1) == batch.labels["label"]).sum() for batch in whole(clips, labels)]
    return float(torch.stack(right).sum()) / len(labels)
