"""Masked modeling of any modality: tokenizers, one shared bidirectional encoder, heads.

The folders ``tokenizers/`` and ``datamodules/`` lie beside this package in a checkout and are imported as
``multimodal.tokenizers`` and ``multimodal.datamodules``; an installed wheel holds them inside this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))  # a package called `tokenizers` at the root would hide Hugging Face's: ours has no __init__.py


def __getattr__(name: str) -> Any:
    """Find ``from_pretrained`` when it is first used: importing torch takes seconds, which ``multimodal --help`` must not."""
    if name == "from_pretrained":
        from multimodal.pretrained import from_pretrained

        return from_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
