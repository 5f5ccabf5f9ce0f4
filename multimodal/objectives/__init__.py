"""Summands of the pretraining loss, and what can be predicted."""

from multimodal.objectives.alignment import Alignment
from multimodal.objectives.between_times import BetweenTimes
from multimodal.objectives.class_aggregation import ClassAggregation
from multimodal.objectives.homologous_contrast import HomologousContrast
from multimodal.objectives.instance_contrast import InstanceContrast
from multimodal.objectives.latent_targets import LatentTargets
from multimodal.objectives.masked_prediction import MaskedPrediction
from multimodal.objectives.masker_training import MaskerTraining
from multimodal.objectives.objective import EncodedBatch, EncodedView, EncoderInput, Objective, Part, Term
from multimodal.objectives.replaced_tokens import ReplacedTokenDetection
from multimodal.objectives.targets import Places, TeacherFeatures, TokenValues

__all__ = [
    "Alignment",
    "BetweenTimes",
    "ClassAggregation",
    "EncodedBatch",
    "EncodedView",
    "EncoderInput",
    "HomologousContrast",
    "InstanceContrast",
    "LatentTargets",
    "MaskedPrediction",
    "MaskerTraining",
    "Objective",
    "Part",
    "Places",
    "ReplacedTokenDetection",
    "TeacherFeatures",
    "Term",
    "TokenValues",
]
