"""Features that were made before -> vectors for an encoder (``multimodal.pretrained.vectors.VectorEmbed``).

Letters in shapes: n vectors, c their width.
"""

from __future__ import annotations

import io
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import Transform
from multimodal.tokenizers.clip_file import FIELD, read_clips


class FeatureArrayTransform(Transform):
    """The rows of an array (``features.npy``) as vectors; an array of one axis is one vector. Nothing is drawn.

    Args:
        width: of the vectors.
        max_vectors: of those that are more, every second, third and so on is taken.

    Raises:
        ValueError: a number below 1.
    """

    extensions: ClassVar[tuple[str, ...]] = ("features.npy",)

    def __init__(self, width: int, max_vectors: int = 512) -> None:
        if min(width, max_vectors) < 1:
            raise ValueError(f"width and max_vectors must be at least 1, got {width} and {max_vectors}.")
        self.width, self.max_vectors = width, max_vectors

    def decode(self, data: bytes) -> Float[Tensor, "n c"]:
        """Return the vectors, float32.

        Raises:
            ValueError: it is no array of finite numbers, of one or two axes, or of another width.
        """
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"not an array: {' '.join(str(error).split())}") from None
        if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or array.dtype.kind != "f":
            raise ValueError("an array of vectors has one or two axes and floating-point numbers; this one has not.")
        return self._checked(torch.from_numpy(np.atleast_2d(array).astype(np.float32)))

    def _checked(self, vectors: Tensor) -> Tensor:
        if not len(vectors) or vectors.shape[1] != self.width:
            raise ValueError(f"there are {len(vectors)} vectors of width {vectors.shape[1]}; at least one of width {self.width} is wanted.")
        if not bool(vectors.isfinite().all()):
            raise ValueError("vectors must be finite; some are not.")
        return vectors

    def example(self) -> Item:
        """Return one vector."""
        return Item(torch.zeros(1, self.width), ragged=True)

    def __call__(self, decoded: Float[Tensor, "n c"], generator: torch.Generator, train: bool) -> Item:
        """Return the vectors, at most ``max_vectors``."""
        return Item(decoded[:: -(-len(decoded) // self.max_vectors)], ragged=True)


class ClipFeatureTransform(FeatureArrayTransform):
    """The features of clips as vectors, from a file of clips. Nothing is drawn.

    Args:
        width: of the features.
        max_vectors: of clips that are more, every second, third and so on is taken.

    Raises:
        ValueError: a number below 1.
    """

    extensions: ClassVar[tuple[str, ...]] = (FIELD,)

    def decode(self, data: bytes) -> Float[Tensor, "n c"]:
        """Return the features, float32.

        Raises:
            ValueError: it is no file of clips, or one without features or with features of another width.
        """
        features = read_clips(data).features
        if features is None:
            raise ValueError("its clips have no features: encode with --keep-features.")
        return self._checked(features.float())
