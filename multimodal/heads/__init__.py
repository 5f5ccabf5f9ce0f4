"""Downstream heads."""

from multimodal.heads.attentive import AttentiveHead
from multimodal.heads.classification import ClassificationHead
from multimodal.heads.distilled import DistilledHead
from multimodal.heads.pooling import POOLS, Pool, pool
from multimodal.heads.pyramid import FeaturePyramid
from multimodal.heads.segmentation import DenseLogits, LinearSegmentation, SegmentationHead
from multimodal.heads.upernet import UPerNetHead

__all__ = [
    "POOLS",
    "AttentiveHead",
    "ClassificationHead",
    "DenseLogits",
    "DistilledHead",
    "FeaturePyramid",
    "LinearSegmentation",
    "Pool",
    "SegmentationHead",
    "UPerNetHead",
    "pool",
]
