"""Summands of the pretraining loss, and what can be predicted."""

from multimodal.objectives.class_aggregation import ClassAggregation
from multimodal.objectives.homologous_contrast import HomologousContrast
from multimodal.objectives.latent_targets import LatentTargets
from multimodal.objectives.masked_prediction import MaskedPrediction
from multimodal.objectives.objective import EncodedBatch, EncodedView, EncoderInput, Objective, Part, Term
from multimodal.objectives.targets import Places, TeacherFeatures, TokenValues

__all__ = [
    "ClassAggregation",
    "EncodedBatch",
    "EncodedView",
    "EncoderInput",
    "HomologousContrast",
    "LatentTargets",
    "MaskedPrediction",
    "Objective",
    "Part",
    "Places",
    "TeacherFeatures",
    "Term",
    "TokenValues",
]
