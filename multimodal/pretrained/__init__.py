"""Saved and foreign models: import, save, load, export."""

from multimodal.pretrained.importing import Imported, ImportReport, import_checkpoint
from multimodal.pretrained.loading import from_pretrained, load_embed, load_encoder, load_head
from multimodal.pretrained.model import Features, PretrainedModel
from multimodal.pretrained.settings import ModelSettings, Origin

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
]
