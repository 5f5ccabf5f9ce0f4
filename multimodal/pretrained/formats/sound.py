"""What the formats of spectrogram transformers share: statistics, how spectrograms are made, and the weights of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import ImportOptions
from multimodal.pretrained.keymap import Entry, same
from multimodal.pretrained.settings import part

ROOM = "multimodal.tokenizers.audio."
SAMPLE_RATE_HZ, FRAME, HOP = 16_000, 400, 160


class Statistics(NamedTuple):
    """Of log-mel spectrograms.

    Args:
        mean: of their values.
        std: of their values.
    """

    mean: float
    std: float


BEATS = Statistics(15.41663, 6.55582)
"""Of waveforms with a full scale of 2^15."""
NAMED = {
    "audioset": Statistics(-4.2677393, 4.5689974),
    "esc50": Statistics(-6.6268077, 5.358466),
    "speechcommands": Statistics(-6.845978, 5.5654526),
}
"""Of waveforms with a full scale of 1."""


def statistics_of(checkpoint: Checkpoint, options: ImportOptions) -> Statistics:
    """Return what spectrograms were normalised with: what the user says, else what lies beside the weights, else those of AudioSet.

    Args:
        checkpoint: the ``preprocessor_config.json`` of transformers names statistics.
        options: the setting ``statistics`` is "audioset", "esc50" or "speechcommands".

    Raises:
        ValueError: the setting has another value.
    """
    name = options.settings.get("statistics")
    if name is not None and name not in NAMED:
        raise ValueError(f"statistics must be one of {sorted(NAMED)}, got {name!r}.")
    beside = checkpoint.extra.get("preprocessor_config")
    if name is None and isinstance(beside, Mapping) and beside.get("mean") is not None and beside.get("std"):
        return Statistics(float(beside["mean"]), float(beside["std"]))
    return NAMED[name or "audioset"]


def spectrogram_embed(patch: int, statistics: Statistics, **more: Any) -> dict[str, Any]:
    """Return the settings of an embedding of spectrograms, which are divided by twice the standard deviation as published."""
    return part(ROOM + "SpectrogramEmbed", patch_size=patch, mean=statistics.mean, std=2 * statistics.std, **more)


def spectrogram_transform(frames: int, bins: int) -> dict[str, Any]:
    """Return how AST, AudioMAE and EAT make spectrograms: of waveforms with a full scale of 1, and all of one length."""
    seconds = (FRAME + (frames - 1) * HOP) / SAMPLE_RATE_HZ
    return part(
        ROOM + "SpectrogramTransform",
        sound=part(ROOM + "AudioTransform", sample_rate_hz=SAMPLE_RATE_HZ, seconds=seconds),
        features=part(ROOM + "LogMel", num_bins=bins, window="hanning", gain=1.0),
        frames=frames,
    )


def patch_weight(ours: str, theirs: str, shape: Sequence[int], frequency_first: bool = False) -> Entry:
    """Return the entry of a convolution over ``(frames, bins)``, or ``(bins, frames)``; our linear layer reads frame after frame."""

    def to_ours(x: list[Tensor]) -> list[Tensor]:
        return [(x[0].transpose(2, 3) if frequency_first else x[0]).flatten(1)]

    def to_theirs(x: list[Tensor]) -> list[Tensor]:
        weight = x[0].unflatten(1, tuple(shape[1:]))
        return [weight.transpose(2, 3).contiguous() if frequency_first else weight]

    return Entry((ours,), (theirs,), to_ours, to_theirs)


def conv_position(theirs: str) -> list[Entry]:
    """Return the entries of convolutional positions, with the names that weight norm gave its tensors before torch 2.1."""
    names = {"bias": "bias", "gain": "weight_g", "direction": "weight_v"}
    return [same(f"encoder.convolution.{ours}", f"{theirs}.{its}") for ours, its in names.items()]


def integer_of(options: ImportOptions, name: str, default: int) -> int:
    """Return a setting that is a whole number of at least 1.

    Raises:
        ValueError: it is something else.
    """
    said = options.settings.get(name, str(default))
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {said!r}.")
    return int(said)
