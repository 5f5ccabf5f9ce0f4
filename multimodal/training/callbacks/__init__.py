"""What a run shows, measures and withstands while it trains."""

from multimodal.training.callbacks.averaged_weights import AveragedWeights
from multimodal.training.callbacks.elastic_resume import ElasticResume
from multimodal.training.callbacks.finite_guard import FiniteGuard
from multimodal.training.callbacks.pictures import PictureLogger
from multimodal.training.callbacks.predictions import PredictionWriter
from multimodal.training.callbacks.probe import LabelProbe
from multimodal.training.callbacks.save_on_signal import SaveOnSignal
from multimodal.training.callbacks.step_seed import StepSeed

__all__ = ["AveragedWeights", "ElasticResume", "FiniteGuard", "LabelProbe", "PictureLogger", "PredictionWriter", "SaveOnSignal", "StepSeed"]
