"""How many tokens of the encoder a sample is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from multimodal.batch import Batch
from multimodal.fingerprint import transform_fingerprint
from multimodal.modality import Input
from multimodal.protocols import TokenCounter
from multimodal.windowed import split_windows


class ModalityTokenCounter(TokenCounter):
    """Counts the tokens into which the embeddings of a model cut a sample, over all its modalities.

    Items of other names, such as transcripts, are not encoded and do not count.

    Args:
        modalities: name -> modality.
    """

    def __init__(self, modalities: Mapping[str, Input]) -> None:
        self.modalities = modalities

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return ``(samples,)`` int64, the tokens of each sample."""
        count = torch.zeros(batch.num_samples, dtype=torch.int64)
        for name, items in batch.items.items():
            if name not in self.modalities:
                continue
            items = split_windows(self.modalities[name].prepared(items, train=False))
            tokens = self.modalities[name].embed.tokens(items.values, items.lengths)
            count.index_add_(0, items.sample, tokens.lengths)
        return count

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the transforms and of the kind and sizes of the embeddings."""
        parts = sorted(self.modalities.items())
        said = [(name, transform_fingerprint(part.transform), repr(part.embed), repr(part.preparation)) for name, part in parts]
        return hashlib.sha256(repr(said).encode()).hexdigest()
