"""Fine-tune an encoder on a few labels of each digit."""

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

from benchmarks.demo.baselines import few_labels
from benchmarks.digit_pretraining.data import MODALITY, RandomBatches, load, whole
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder, LayerNorm
from multimodal.pretrained import load_embed, load_encoder
from multimodal.tokenizers.image import ClassificationTransform, PatchEmbed, RandAugment
from multimodal.training import FineTuning, FusedAdamW, WarmupCosine

OPERATIONS = ("Rotate", "ShearX", "ShearY")
"""What leaves a digit the digit it is."""


@dataclass(frozen=True)
class Setting:
    """How long and how fast to fine-tune.

    Args:
        steps: optimizer steps.
        batch_size: images of a step.
        lr: highest learning rate, of the head.
        layer_decay: learning rate of a layer as a share of the next one's.
    """

    steps: int
    batch_size: int = 64
    lr: float = 3e-3
    layer_decay: float = 0.75


SETTINGS = {10: Setting(400), 20: Setting(400), 100: Setting(600), 400: Setting(1000)}
"""Labels of each digit -> how to fine-tune."""


def digit_transform() -> ClassificationTransform:
    """Return the transform that all encoders are fine-tuned with: digits at 32 x 32 pixels, turned, sheared, shifted and scaled."""
    augment = RandAugment("rand-m5-n2-mstd0.5", OPERATIONS, fill=(0.0,))
    return ClassificationTransform(32, channels=1, scale=(0.75, 1.0), ratio=(0.85, 1.18), flip=0.0, augment=augment, evaluation_crop=1.0)


def new_parts(dim: int = 128, depth: int = 4, num_heads: int = 4) -> tuple[Encoder, Callable[[int], PatchEmbed]]:
    """Return an encoder that was not trained, of the size of the recipes', and what builds its embedding."""
    embed = partial(PatchEmbed, patch_size=8, channels=1, mean=(0.13,), std=(0.31,))
    return Encoder(dim, depth, num_heads, class_token=True), embed


def accuracy(model: Path | None, data: Path, labels_per_class: int, seed: int) -> tuple[float, float]:
    """Return the accuracy on the 1,000 test digits, and the seconds that fine-tuning took.

    Args:
        model: folder of a pretrained model; None: from scratch.
        data: folder of the digits.
        labels_per_class: labelled images of each digit.
        seed: of the labels that are drawn, of new weights and of the batches.
    """
    L.seed_everything(seed, verbose=False)
    images, labels = load(data, "train")
    chosen = torch.from_numpy(few_labels(labels.numpy(), labels_per_class, seed))
    setting, transform = SETTINGS[labels_per_class], digit_transform()
    encoder, embed = new_parts() if model is None else (load_encoder(str(model)), load_embed(str(model), MODALITY))
    training = FineTuning(
        encoder,
        {MODALITY: partial(Input, transform=transform, embed=embed)},
        {"label": partial(ClassificationHead, num_classes=10, norm=LayerNorm)},
        label_smoothing=0.1,
        optimizer=partial(FusedAdamW, lr=setting.lr, weight_decay=0.05),
        schedule=partial(WarmupCosine, warmup=0.1, final=0.0),
        layer_decay=None if model is None else setting.layer_decay,
    )
    batches = RandomBatches(images[chosen], labels[chosen], transform, setting.batch_size, seed)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=setting.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training, DataLoader(batches, batch_size=None))
    return _score(training, *load(data, "test")), time.monotonic() - started


@torch.no_grad()
def _score(training: FineTuning, images: Tensor, labels: Tensor) -> float:
    training.eval()
    right = [
        (training(batch)["label"].argmax(1) == batch.labels["label"]).sum()
        for batch in whole(images, labels, training.transforms[MODALITY])
    ]
    return float(torch.stack(right).sum()) / len(labels)
