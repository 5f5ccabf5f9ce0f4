"""Train a small encoder to transcribe prompts, and score it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning as L

from benchmarks.speech.prompts import ALPHABETS
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.heads import CtcHead
from multimodal.modality import Input
from multimodal.nn import ConvPosition, Encoder, LayerNorm
from multimodal.pretrained import load_embed, load_encoder
from multimodal.protocols import Embed
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.audio import AudioTransform, LogMel, SpecAugment, SpectrogramEmbed, Spectrograms
from multimodal.tokenizers.text import CharacterTokenizer, TextTransform
from multimodal.training import FusedAdamW, Transcription, WarmupCosine

MODALITY = "audio"
BEAM_SIZE = 20
QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Setting(NamedTuple):
    """How to train.

    Args:
        epochs: passes through the prompts.
        batch_size: prompts of a step.
        lr: highest learning rate, of the head.
        layer_decay: learning rate of a layer as a share of the next one's, of a pretrained encoder.
        bins: of a spectrogram; those that the model was pretrained with.
        seed: of new weights, order and augmentation.
    """

    epochs: int = 60
    batch_size: int = 8
    lr: float = 1e-3
    layer_decay: float = 0.8
    bins: int = 64
    seed: int = 0


class Parts(NamedTuple):
    """An encoder and how sounds enter it.

    Args:
        encoder: the encoder.
        embed: of spectrograms.
    """

    encoder: Encoder
    embed: Callable[[int], Embed] | Embed


def small(bins: int) -> Parts:
    """Return an encoder of 1.9 million weights, a token for each 40 ms."""
    encoder = Encoder(192, 4, 3, convolution=partial(ConvPosition, kernel_size=32, groups=16))
    return Parts(encoder, partial(SpectrogramEmbed, patch_size=[4, bins], position=None))


def pretrained(model: str) -> Parts:
    """Return the parts of a saved model."""
    return Parts(load_encoder(model), load_embed(model, MODALITY))


def untrained(model: str) -> Parts:
    """Return parts as those of a saved model, with new weights."""
    encoder, embed = pretrained(model)
    return Parts(build(settings_of(encoder)), build(settings_of(cast(Embed, embed), ("dim",)), encoder.dim))


def transcription(parts: Parts, language: str, setting: Setting, layer_decay: float | None) -> Transcription:
    """Return the model to train."""
    preparation = [
        Spectrograms(LogMel(num_bins=setting.bins)),
        SpecAugment(time_masks=4, time_width=20, time_share=0.08, frequency_masks=2, frequency_width=setting.bins // 5),
    ]
    heard = partial(Input, transform=AudioTransform(seconds=None, min_seconds=0.1), embed=parts.embed, preparation=preparation)
    return Transcription(
        parts.encoder,
        {MODALITY: heard},
        TextTransform(CharacterTokenizer(ALPHABETS[language]), max_tokens=4096),
        head=partial(CtcHead, norm=LayerNorm, dropout=0.1),
        optimizer=partial(FusedAdamW, lr=setting.lr, betas=(0.9, 0.98), weight_decay=0.05),
        schedule=partial(WarmupCosine, warmup=0.1),
        layer_decay=layer_decay,
    )


def train_and_score(data: Path, languages: Sequence[str], how: str, model: str | None, setting: Setting) -> dict[str, Any]:
    """Train once; return the scores of the test split, greedy and with a beam, and the seconds that the training took.

    Args:
        data: folder of ``benchmarks.speech.data``.
        languages: whose prompts are read, of one alphabet.
        how: "scratch" or "pretrained".
        model: folder of a saved model; None: new weights for ``small``.
        setting: how to train.
    """
    L.seed_everything(setting.seed, verbose=False)
    parts = small(setting.bins) if model is None else (pretrained if how == "pretrained" else untrained)(model)
    training = transcription(parts, languages[0], setting, setting.layer_decay if how == "pretrained" else None)
    shards = [str(data / "shards" / language) for language in languages]
    reader = ShardDataModule(shards, training.transforms, setting.batch_size, seed=setting.seed)
    trainer = L.Trainer(accelerator="cpu", max_epochs=setting.epochs, limit_val_batches=0, gradient_clip_val=1.0, **QUIET)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(training, datamodule=reader)
        seconds = round(time.monotonic() - started)
        scores = {name: _scores(training, reader, beam_size) for name, beam_size in (("greedy", 1), ("beam", BEAM_SIZE))}
    return {"how": how, "model": model, "languages": list(languages), "seconds": seconds, **setting._asdict(), **scores}


def _scores(training: Transcription, reader: ShardDataModule, beam_size: int) -> dict[str, float]:
    training.beam_size = beam_size
    (scores,) = L.Trainer(accelerator="cpu", **QUIET).test(training, datamodule=reader, verbose=False)
    return {name.removeprefix("test/"): round(value, 4) for name, value in scores.items()}
