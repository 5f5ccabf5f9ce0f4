"""What an encoder of music that is not trained any more makes of excerpts: one vector of each, for a linear classifier.

Letters in shapes: x excerpts, n notes, k fields, f features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.music.parts import embed_of, encoder_of, modality_of
from benchmarks.music.pitches import moved
from multimodal.nn import Encoder
from multimodal.protocols import Embed
from multimodal.tokenizers.midi import MidiTransform, Score
from multimodal.training.layer_features import InputTokens, chosen_layers, encode_layers

KEYS = (-4, -2, 0, 2, 4)
"""Views of an excerpt, in semitones."""
BATCH = 256


def frozen_features(run: Path, excerpts: Sequence[Score], untrained: int | None = None) -> np.ndarray:
    """Return ``(x, f)`` means and standard deviations of the notes after each layer, averaged over several keys.

    Args:
        run: of pretraining.
        excerpts: all of as many notes.
        untrained: seed of new weights for an encoder built like that of the run; None: its own.
    """
    encoder, embed, transform = encoder_of(str(run)), embed_of(str(run)), cast(MidiTransform, modality_of(str(run)).transform)
    if untrained is not None:
        torch.manual_seed(untrained)
        encoder, embed = (type(part)(**part.init_args).eval() for part in (encoder, embed))
    pitch = transform.tokenizer.field_names.index("pitch")
    ids = [transform.tokenizer.encode_score(score) for score in excerpts]
    views = [_in_batches(encoder, embed, torch.stack([moved(own, pitch, key) for own in ids])) for key in KEYS]
    return torch.stack(views).mean(0).numpy()


@torch.no_grad()
def _in_batches(encoder: Encoder, embed: Embed, ids: Int[Tensor, "x n k"]) -> Float[Tensor, "x f"]:
    return torch.cat([_features(encoder, embed, batch) for batch in ids.split(BATCH)])


def _features(encoder: Encoder, embed: Embed, ids: Int[Tensor, "x n k"]) -> Float[Tensor, "x f"]:
    number, notes = ids.shape[:2]
    tokens = embed.tokens(ids.flatten(0, 1), torch.full((number,), notes))
    sequence = torch.arange(number).repeat_interleave(notes)
    layers = chosen_layers(encoder, "all")
    found = encode_layers(encoder, [InputTokens(embed(tokens), sequence, tokens.coordinates)], layers)
    of_notes = [found[layer].tokens.view(number, notes, -1).float() for layer in layers]
    return torch.cat([part for vectors in of_notes for part in (vectors.mean(1), vectors.std(1))], 1)
