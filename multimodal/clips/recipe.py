"""How a config names windows and an extractor, and what they are when built."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.config_errors import shorten
from multimodal.config_files import read_config

if TYPE_CHECKING:
    from multimodal.clips.interfaces import Extractor, Windows

NAMES = ("windows", "extractor")
SAID = "clips"
"""The entry of the index's ``writer`` about clips."""


@dataclass(frozen=True)
class ClipRecipe:
    """How to build windows and an extractor; small, so that every process builds its own.

    Args:
        windows: ``class_path`` and ``init_args``, as JSON.
        extractor: likewise.
    """

    windows: str
    extractor: str

    @classmethod
    def from_file(cls, path: str | Path) -> ClipRecipe:
        """Return what a YAML file names.

        Raises:
            ValueError: it cannot be read, or has other entries than ``windows`` and ``extractor``.
        """
        content = read_config(Path(path))
        there = sorted(content) if isinstance(content, Mapping) else type(content).__name__
        if there != sorted(NAMES):
            raise ValueError(f"{path} must have the entries {' and '.join(NAMES)}, each with a class_path; it has {there}.")
        return cls(*(json.dumps(content[name]) for name in NAMES))

    def build(self) -> tuple[Windows, Extractor]:
        """Return windows and extractor, which fit each other.

        Raises:
            ValueError: a class or a setting that does not exist, a setting that the class refuses, or clips that the extractor cannot read.
        """
        os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
        from jsonargparse import ArgumentError, ArgumentParser

        from multimodal.clips.interfaces import Extractor, Windows

        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--windows", type=Windows)
        parser.add_argument("--extractor", type=Extractor)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning, module="jsonargparse.*")
                settings = {"windows": json.loads(self.windows), "extractor": json.loads(self.extractor)}
                built = parser.instantiate(parser.parse_object(settings))
        except (ArgumentError, ValueError) as error:
            raise ValueError(shorten(str(error))) from None
        if empty := [name for name in NAMES if getattr(built, name) is None]:
            raise ValueError(f"{empty[0]} is empty: name a class_path.")
        built.extractor.check(built.windows.example())
        return built.windows, built.extractor


@dataclass(frozen=True)
class ClipParts:
    """Windows and extractor, the latter on its device.

    Args:
        windows: cut recordings into clips.
        extractor: makes features of clips.
        device: of the extractor.
    """

    windows: Windows
    extractor: Extractor
    device: str

    def fingerprint(self) -> str:
        """Return a hash (hex) of all that decides the features of a recording, but for the kind of device."""
        return hashlib.sha256(f"{self.windows.fingerprint()} {self.extractor.fingerprint()}".encode()).hexdigest()


@lru_cache(maxsize=1)
def cached_parts(recipe: ClipRecipe, device: str) -> ClipParts:
    """Return the parts; kept for the next shard of the process.

    Raises:
        ValueError: as ``ClipRecipe.build``, or there is no such device.
    """
    check_device(device)
    windows, extractor = recipe.build()
    return ClipParts(windows, extractor.to(device).eval(), device)


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: it is neither "cpu" nor "cuda", or there is no CUDA device.
    """
    import torch

    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {device!r}.")
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: this machine has no CUDA device that torch can use.")


def windows_of(said: Mapping[str, Any]) -> Windows:
    """Return the windows that the index of shards says their clips were cut by.

    Raises:
        ValueError: it says none, or a class that is none of this package's windows.
    """
    from multimodal.clips.interfaces import Windows
    from multimodal.recorded import instantiate

    settings = said.get("windows")
    if not isinstance(settings, Mapping):
        raise ValueError("the index does not say how clips were cut: write the features with `multimodal clips features`.")
    built = instantiate(settings)
    if not isinstance(built, Windows):
        raise ValueError(f"{settings.get('class_path')} cuts no clips.")
    return built
