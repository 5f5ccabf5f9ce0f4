"""One vector of each film, for a captioner, made by a model of words and clips.

Letters in shapes: b stretches, d width of the encoder.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multimodal.clips.film_model import FilmModel
from multimodal.clips.films import Stretch, sequence_of
from multimodal.datamodules.shards.reader import RawSample
from multimodal.tokenizers.clip_file import FIELD, read_clips, write_clips

TEMPLATE = "now let's [MASK] the [MASK] to the [MASK], and then [MASK] the [MASK]."
"""VideoBERT's."""


def caption_features(model: FilmModel, stretches: Sequence[Stretch], template: str = TEMPLATE) -> Float[Tensor, "b two_d"]:
    """Return, side by side, the mean of the encoder's output at clips and at the masks of a template (VideoBERT, arXiv 1904.01766).

    Args:
        model: of words and clips.
        stretches: at least one.
        template: with at least one ``[MASK]``, before the clips.

    Raises:
        ValueError: the template has no mask, or leaves no room for a clip.
    """
    words = model.vocabulary.encode_template(template)
    if not bool((words == model.vocabulary.mask_id).any()):
        raise ValueError(f"the template {template!r} has no [MASK].")
    sequences = [sequence_of(model.transform, words, stretch.clips) for stretch in stretches]
    found = [torch.cat([seen.mean(model.vocabulary.is_clip(seen.ids)), seen.mean(seen.hidden)], 1) for seen in model.see(sequences)]
    return torch.cat(found).cpu()


def write_sample(folder: Path, stretch: Stretch, raw: RawSample, features: Float[Tensor, " two_d"]) -> None:
    """Write what a captioner learns from as files of one name: features, clips and, where something is said, words.

    Args:
        folder: made if it is not there.
        stretch: which.
        raw: the sample that it is part of.
        features: of the stretch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / stretch.name.replace("/", "__")  # a folder would be taken for a label
    buffer = io.BytesIO()
    np.save(buffer, features.numpy(), allow_pickle=False)
    film, own = read_clips(raw.fields[FIELD]), stretch.numbers
    features_of, ids = (None if rows is None else rows[own] for rows in (film.features, film.ids))
    clips = replace(film, starts=film.starts[own], ends=film.ends[own], features=features_of, ids=ids)
    fields = {"features.npy": buffer.getvalue(), FIELD: write_clips(clips)}
    if stretch.text.strip():
        fields["txt"] = stretch.text.encode()
    for field, data in fields.items():
        path.with_name(f"{path.name}.{field}").write_bytes(data)
