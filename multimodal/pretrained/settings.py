"""What a saved model says about itself: how to build its parts, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Args:
        family: of models, such as "beit".
        layout: of the keys that were read, such as "unilm" or "transformers".
        licence: of the weights, as published; "" where they are the user's own.
        source: where the family is published (URL).
        file: name of the file that was read.
        sha256: of that file, hex; of several files, of the hashes of all in order.
        resized: what was resampled to another resolution, in words.
    """

    family: str = ""
    layout: str = ""
    licence: str = ""
    source: str = ""
    file: str = ""
    sha256: str = ""
    resized: str = ""


@dataclass(frozen=True)
class ModelSettings:
    """How to build a ``PretrainedModel``; plain values, as JSON holds them. A part is a class path and its settings, like in a config.

    Args:
        encoder: the encoder.
        embeds: modality name -> its embedding; the width is filled in.
        heads: name -> head; the width is filled in.
        transforms: modality name -> how its files are read, for those who train on.
        experts: modality name -> the expert of its tokens, in a multiway encoder; 0 where it is not said.
        tied: name of a parameter -> name of the one that it is the same as.
        labels: names of the classes, in order; empty where they are not known.
        origin: where the weights come from.
    """

    encoder: Mapping[str, Any]
    embeds: Mapping[str, Mapping[str, Any]]
    heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    transforms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    experts: Mapping[str, int] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    origin: Origin = Origin()

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> ModelSettings:
        """Undo ``to_json``.

        Raises:
            ValueError: a setting is missing, or unknown.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(saved.keys() - known):
            raise ValueError(f"unknown settings {unknown}: saved by a later version?")
        if missing := sorted({"encoder", "embeds"} - saved.keys()):
            raise ValueError(f"settings {missing} are missing.")
        try:
            origin = Origin(**saved.get("origin", {}))
        except TypeError as error:
            raise ValueError(f"the origin has unknown entries: {error}") from error
        return cls(**{**saved, "origin": origin, "labels": tuple(saved.get("labels", ()))})


def part(class_path: str, **init_args: Any) -> dict[str, Any]:
    """Return the settings of a part: its class and what it is built with."""
    return {"class_path": class_path, "init_args": init_args}
