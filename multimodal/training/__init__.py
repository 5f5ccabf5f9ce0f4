"""Lightning modules, optimisation, scores and probes."""

from multimodal.training.masked_pretraining import MaskedPretraining
from multimodal.training.optimization import WarmupCosine, parameter_groups
from multimodal.training.probing import ProbeResult, probe
from multimodal.training.tokenizer_training import TokenizerTraining

__all__ = ["MaskedPretraining", "ProbeResult", "TokenizerTraining", "WarmupCosine", "parameter_groups", "probe"]
