"""What a modality brings so that its recordings can be cut into clips, and clips become features.

Letters in shapes: b clips, d width of the features.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from multimodal.recorded import Recorded, settings_of


class CutClip(NamedTuple):
    """A clip of a recording.

    Args:
        start_s: seconds from the beginning of the recording.
        end_s: seconds, after ``start_s``.
        values: as an extractor reads them.
    """

    start_s: float
    end_s: float
    values: Tensor


class Windows(Recorded, ABC):
    """How a recording is cut into clips, and what of it an extractor sees. Its settings are plain, and kept in the index of the shards."""

    extensions: ClassVar[tuple[str, ...]]
    """Names of the shard fields (file extensions, lower case, no dot) that hold the recordings."""
    version: ClassVar[int] = 1
    """To be raised when the same settings come to give other clips."""

    @abstractmethod
    def __call__(self, data: bytes) -> Iterator[CutClip]:
        """Yield the clips of a file, by time, one at a time.

        Raises:
            ValueError: the file is damaged or over a limit, or has no clip.
        """

    @abstractmethod
    def example(self) -> Tensor:
        """Return values such as those of a clip, on which an extractor tries whether it can read them."""

    @abstractmethod
    def pictures_of(self, data: bytes, times_s: list[float], height: int) -> UInt8[Tensor, "b 3 height width"]:
        """Return pictures that stand for moments of a recording, to be looked at.

        Args:
            data: the file.
            times_s: of the moments, ascending.
            height: of a picture, in pixels.

        Raises:
            ValueError: as ``__call__``.
        """

    def fingerprint(self) -> str:
        """Return a hash (hex) of the settings."""
        said = json.dumps([settings_of(self), self.version], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


class Extractor(nn.Module, ABC):
    """A frozen model that gives each clip one vector, which does not depend on the clips beside it."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the features."""

    @abstractmethod
    def forward(self, values: Tensor) -> Float[Tensor, "b d"]:
        """Return the features of clips, float32, without gradients.

        Args:
            values: ``(b, ...)``, clips such as ``Windows`` cuts them.

        Raises:
            ValueError: the clips are not such as the model reads.
        """

    @abstractmethod
    def check(self, values: Tensor) -> None:
        """Refuse clips that the model cannot read.

        Args:
            values: of one clip.

        Raises:
            ValueError: the clip has another size or number of pictures than the model reads.
        """

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the features beside the weights, as plain data."""
        return {}

    def fingerprint(self) -> str:
        """Return a hash (hex) of the class, the settings and the weights."""
        said = [f"{type(self).__module__}.{type(self).__qualname__}", self.settings]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for name, x in sorted(self.state_dict().items()):
            digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
            digest.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
