"""Lightning modules, optimisation, scores and probes."""

from multimodal.training.captioning import Captioning
from multimodal.training.encoder_training import EncoderTraining
from multimodal.training.fine_tuning import FineTuning
from multimodal.training.fused_adamw import FusedAdamW
from multimodal.training.layer_probing import LayerProbing
from multimodal.training.masked_pretraining import MaskedPretraining
from multimodal.training.mixing import Mixing
from multimodal.training.optimization import WarmupCosine, WarmupLinear, WarmupPolynomial, WarmupStableDecay, parameter_groups
from multimodal.training.probing import ProbeResult, probe
from multimodal.training.question_answering import QuestionAnswering
from multimodal.training.retrieval import Retrieval
from multimodal.training.segmentation import SemanticSegmentation
from multimodal.training.sliding_window import SlidingWindow
from multimodal.training.token_labelling import TokenLabelling
from multimodal.training.tokenizer_training import TokenizerTraining
from multimodal.training.transcription import Transcription
from multimodal.training.word_labelling import WordLabelling

__all__ = [
    "Captioning",
    "EncoderTraining",
    "FineTuning",
    "FusedAdamW",
    "LayerProbing",
    "MaskedPretraining",
    "Mixing",
    "ProbeResult",
    "QuestionAnswering",
    "Retrieval",
    "SemanticSegmentation",
    "SlidingWindow",
    "TokenLabelling",
    "TokenizerTraining",
    "Transcription",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupPolynomial",
    "WarmupStableDecay",
    "WordLabelling",
    "parameter_groups",
    "probe",
]
