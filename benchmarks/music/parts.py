"""Parts of an encoder that was pretrained here, for configs: its embedding is a class of these benchmarks, which no saved model names."""

from __future__ import annotations

from functools import cache
from typing import cast

from multimodal.lightning_cli import load_run
from multimodal.modality import Modality
from multimodal.nn import Encoder, TokenHead
from multimodal.protocols import Embed
from multimodal.training import MaskedPretraining

MODALITY = "midi"


def encoder_of(run: str) -> Encoder:
    """Return the encoder of a run."""
    return _model(run).encoder


def embed_of(run: str) -> Embed:
    """Return the embedding of a run."""
    return modality_of(run).embed


def head_of(run: str) -> TokenHead:
    """Return the prediction head of a run."""
    return modality_of(run).head


def modality_of(run: str) -> Modality:
    """Return the modality of a run, with all of its parts."""
    return cast(Modality, _model(run).modalities[MODALITY])


@cache
def _model(run: str) -> MaskedPretraining:
    return cast(MaskedPretraining, load_run(run)[0])
