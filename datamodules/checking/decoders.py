"""Which field is decoded by what: found by asking the transforms of every modality that is installed, so that none is named here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multimodal.protocols import Transform


@dataclass
class Decoders:
    """The transforms of all modalities, with their default settings.

    Args:
        transforms: field (file extension) -> the first transform that claims it.
        reasons: field -> why the transform that claims it cannot be used.
        absent: one line for each modality that cannot be imported; nobody knows which fields it would claim.
    """

    transforms: dict[str, Transform] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def find(self, name: str) -> Transform | None:
        """Return what decodes a field; the last extension of a compound name decides where nobody claims the whole."""
        return self.transforms.get(name) or self.transforms.get(name.rpartition(".")[-1])

    def why_not(self, name: str) -> str:
        """Return why no transform decodes a field."""
        reason = self.reasons.get(name) or self.reasons.get(name.rpartition(".")[-1])
        return reason or "; ".join(["no transform of this installation reads it", *self.absent])


def load_decoders() -> Decoders:
    """Import every modality and build its transforms. What is missing of an optional package is noted and does not stop the others."""
    decoders = Decoders()
    for module in _modalities():
        try:
            classes = sorted(_transforms(module), key=lambda cls: len(cls.__mro__))  # what others are derived from comes first
        except ImportError as error:
            decoders.absent.append(f"{module} cannot be imported ({error})")
            continue
        for cls in classes:
            _add(decoders, cls)
    return decoders


def _modalities() -> Iterator[str]:
    import multimodal.tokenizers as package

    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if info.ispkg:
            yield info.name


def _transforms(module: str) -> Iterator[type[Transform]]:
    from multimodal.protocols import Transform

    package = importlib.import_module(module)
    for name in getattr(package, "__all__", ()):
        cls = getattr(package, name)
        if isinstance(cls, type) and issubclass(cls, Transform) and not inspect.isabstract(cls):
            yield cls


def _add(decoders: Decoders, cls: type[Transform]) -> None:
    try:
        transform = cls()
    except (ValueError, TypeError, ImportError) as error:  # an optional package is missing, or a setting has no default
        names = cls.extensions if isinstance(cls.extensions, tuple) else ()  # some depend on the settings
        decoders.reasons.update((name, f"{cls.__name__} cannot be built: {error}") for name in names if name not in decoders.transforms)
    else:
        decoders.transforms.update((name, transform) for name in transform.extensions if name not in decoders.transforms)
