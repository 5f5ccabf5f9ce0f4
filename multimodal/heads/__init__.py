"""Downstream heads."""

from multimodal.heads.classification import ClassificationHead
from multimodal.heads.distilled import DistilledHead
from multimodal.heads.pooling import POOLS, Pool, pool

__all__ = ["POOLS", "ClassificationHead", "DistilledHead", "Pool", "pool"]
