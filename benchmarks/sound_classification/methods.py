"""Tell the classes of sounds: by fine-tuning, and by a support vector machine on frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import lightning as L
import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.sound_classification.sounds import LABEL, MODALITY, RandomBatches, Sounds, transform, whole
from multimodal.config_files import read_config
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import BucketedBias, DeepNormBlock, Encoder, LayerNorm
from multimodal.nn.attention import Attention
from multimodal.nn.content_bias import GatedBias
from multimodal.pretrained import PretrainedModel, from_pretrained, load_embed, load_encoder
from multimodal.protocols import Embed, Preparation
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.audio import SpecAugment, SpectrogramEmbed
from multimodal.training import FineTuning, FusedAdamW, WarmupCosine

RECIPE = Path("configs/pretrain/beats_sounds.yaml")
STEPS, BATCH, RATE, LAYER_DECAY = 300, 32, 1e-3, 0.75
C = 10.0
"""Of all support vector machines; 3 and 30 are within a point."""


def new_parts() -> tuple[Encoder, Callable[[int], SpectrogramEmbed]]:
    """Return an encoder that was not trained, and what builds its embedding, as ``configs/pretrain/beats_sounds.yaml`` has them."""
    sizes = read_config(RECIPE)["model"]["init_args"]["encoder"]
    encoder = Encoder(
        sizes["dim"],
        sizes["depth"],
        sizes["num_heads"],
        block=DeepNormBlock,
        attention=partial(Attention, content_bias=GatedBias),
        norm=partial(LayerNorm, eps=1e-5),
        norm_at="input",
        bias=partial(BucketedBias, **sizes["bias"]["init_args"]),
    )
    return encoder, SpectrogramEmbed


def parts(model: Path | None, untrained: bool) -> tuple[Encoder, Callable[[int], Embed] | Embed]:
    """Return an encoder, and its embedding or what builds it; arguments as of ``fine_tuned``."""
    if model is None:
        return new_parts()
    encoder, embed = load_encoder(str(model)), cast(Embed, load_embed(str(model), MODALITY))
    return (build(settings_of(encoder)), build(settings_of(embed, ("dim",)), encoder.dim)) if untrained else (encoder, embed)


def fine_tuned(
    model: Path | None,
    sounds: Sounds,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    steps: int = STEPS,
    untrained: bool = False,
    layer_decay: float = LAYER_DECAY,
    augmentation: Sequence[Preparation] = (),
) -> np.ndarray:
    """Return the classes that a fine-tuned encoder tells the test recordings to be.

    Args:
        model: folder of a pretrained model; None: from scratch, built as ``new_parts`` does.
        sounds: all recordings.
        train: numbers of those to learn from.
        test: numbers of those to tell.
        seed: of new weights and of the batches.
        steps: of the optimizer.
        untrained: from scratch, built like the model.
        layer_decay: learning rate of a layer as a share of the next one's, of a model that was pretrained.
        augmentation: of spectrograms, before SpecAugment.
    """
    L.seed_everything(seed, verbose=False)
    encoder, embed = parts(model, untrained)
    augment = SpecAugment(time_width=24, time_share=0.3, frequency_width=16)
    training = FineTuning(
        encoder,
        {MODALITY: partial(Input, transform=transform(), embed=embed, preparation=[*augmentation, augment])},
        {LABEL: partial(ClassificationHead, num_classes=len(sounds.classes), norm=LayerNorm)},
        label_smoothing=0.1,
        optimizer=partial(FusedAdamW, lr=RATE, weight_decay=0.05),
        schedule=partial(WarmupCosine, warmup=0.1, final=0.0),
        layer_decay=None if model is None or untrained else layer_decay,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training, DataLoader(RandomBatches(sounds, train, BATCH, seed), batch_size=None))
    training.eval()
    with torch.no_grad():
        return torch.cat([training(batch)[LABEL].argmax(1) for batch in whole(sounds, list(test))]).numpy()


def mean_and_maximum(tokens: Tensor) -> Tensor:
    """Return ``(2 c,)`` of the tokens ``(t, c)`` of a recording."""
    return torch.cat([tokens.mean(0), tokens.amax(0)])


@torch.inference_mode()
def frozen_features(
    model: Path, sounds: Sounds, pool: Callable[[Tensor], Tensor] = mean_and_maximum, untrained: int | None = None
) -> np.ndarray:
    """Return, of each recording, what ``pool`` makes of its tokens after each layer, side by side.

    Args:
        model: folder of a pretrained model.
        sounds: all recordings.
        pool: makes one vector of the tokens ``(t, c)``.
        untrained: seed of new weights for a model built like that; None: its own.
    """
    found = from_pretrained(str(model))
    assert isinstance(found, PretrainedModel)
    if untrained is not None:
        torch.manual_seed(untrained)
        found = PretrainedModel(found.settings).eval()
    layers, rows = tuple(range(found.encoder.depth)), []
    for batch in whole(sounds, range(len(sounds.labels))):
        items = batch.items[MODALITY]
        assert items.lengths is not None
        _, outputs, sequence, _ = found.encode({MODALITY: items.values}, {MODALITY: items.lengths}, layers)
        counts = torch.bincount(sequence, minlength=len(items)).tolist()
        rows.append(torch.cat([torch.stack([pool(part) for part in x.split(counts)]) for x in outputs], 1))
    return torch.cat(rows).numpy()


def machine(features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the classes that a support vector machine tells the test recordings to be."""
    return make_pipeline(StandardScaler(), SVC(C=C)).fit(features[train], labels[train]).predict(features[test])
