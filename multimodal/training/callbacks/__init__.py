"""What a run shows and measures while it trains."""

from multimodal.training.callbacks.pictures import PictureLogger
from multimodal.training.callbacks.predictions import PredictionWriter
from multimodal.training.callbacks.probe import LabelProbe

__all__ = ["LabelProbe", "PictureLogger", "PredictionWriter"]
