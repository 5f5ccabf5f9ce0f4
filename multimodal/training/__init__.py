"""Lightning modules, optimisation, scores and probes."""

from multimodal.training.encoder_training import EncoderTraining
from multimodal.training.fine_tuning import FineTuning
from multimodal.training.fused_adamw import FusedAdamW
from multimodal.training.masked_pretraining import MaskedPretraining
from multimodal.training.optimization import WarmupCosine, parameter_groups
from multimodal.training.probing import ProbeResult, probe
from multimodal.training.tokenizer_training import TokenizerTraining

__all__ = [
    "EncoderTraining",
    "FineTuning",
    "FusedAdamW",
    "MaskedPretraining",
    "ProbeResult",
    "TokenizerTraining",
    "WarmupCosine",
    "parameter_groups",
    "probe",
]
