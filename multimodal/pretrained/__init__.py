"""Saved and foreign models: import, save, load, export.

Names are found when they are first used, so that ``multimodal import --help`` need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.pretrained.importing import Imported, ImportReport, import_checkpoint
    from multimodal.pretrained.loading import from_pretrained, load_embed, load_encoder, load_head, load_token_head
    from multimodal.pretrained.model import Features, PretrainedModel
    from multimodal.pretrained.settings import ModelSettings, Origin

_FILES = {
    "importing": ("ImportReport", "Imported", "import_checkpoint"),
    "loading": ("from_pretrained", "load_embed", "load_encoder", "load_head", "load_token_head"),
    "model": ("Features", "PretrainedModel"),
    "settings": ("ModelSettings", "Origin"),
}
_WHERE = {name: file for file, names in _FILES.items() for name in names}

__all__ = [
    "Features",
    "ImportReport",
    "Imported",
    "ModelSettings",
    "Origin",
    "PretrainedModel",
    "from_pretrained",
    "import_checkpoint",
    "load_embed",
    "load_encoder",
    "load_head",
    "load_token_head",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
