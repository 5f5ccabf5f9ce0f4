"""Downstream heads."""

from multimodal.heads.attentive import AttentiveHead
from multimodal.heads.captioner import CaptionDecoder
from multimodal.heads.classification import ClassificationHead
from multimodal.heads.ctc import CtcHead
from multimodal.heads.distilled import DistilledHead
from multimodal.heads.embedding import EmbeddingHead
from multimodal.heads.pooling import POOLS, Pool, Pooling, pool
from multimodal.heads.pyramid import FeaturePyramid
from multimodal.heads.retrieval import LateInteraction, PooledEmbedding, RetrievalHead
from multimodal.heads.segmentation import DenseLogits, LinearSegmentation, SegmentationHead
from multimodal.heads.structured_attention import StructuredAttentionPooling
from multimodal.heads.tagging import TaggingHead
from multimodal.heads.token import TokenClassifier
from multimodal.heads.upernet import UPerNetHead

__all__ = [
    "POOLS",
    "AttentiveHead",
    "CaptionDecoder",
    "ClassificationHead",
    "CtcHead",
    "DenseLogits",
    "DistilledHead",
    "EmbeddingHead",
    "FeaturePyramid",
    "LateInteraction",
    "LinearSegmentation",
    "Pool",
    "PooledEmbedding",
    "Pooling",
    "RetrievalHead",
    "SegmentationHead",
    "StructuredAttentionPooling",
    "TaggingHead",
    "TokenClassifier",
    "UPerNetHead",
    "pool",
]
