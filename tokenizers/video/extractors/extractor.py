"""The interface of what makes vectors of clips.

Letters in shapes: b clips, f pictures of a clip, h height, w width, d width of the features.
"""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float, UInt8
from torch import Tensor

from multimodal.clips.interfaces import Extractor


class ClipExtractor(Extractor):
    """A frozen model of clips of uint8 pictures."""

    min_frames: int = 1
    """Pictures of a clip, at least."""
    size: int | None = None
    """Side of the pictures in pixels; None: any."""

    @abstractmethod
    def forward(self, values: UInt8[Tensor, "b f 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of clips, float32, without gradients.

        Raises:
            ValueError: the clips are not such as the model reads.
        """

    def check(self, values: Tensor) -> None:
        """Refuse clips that the model cannot read; ``values``: ``(f, 3, h, w)``.

        Raises:
            ValueError: too few pictures, or pictures of another size.
        """
        if values.ndim != 4 or values.shape[1] != 3:
            raise ValueError(f"a {type(self).__name__} reads clips of pictures in three colours, got {tuple(values.shape)}.")
        frames, sides = values.shape[0], tuple(values.shape[2:])
        if frames < self.min_frames:
            raise ValueError(f"a {type(self).__name__} reads clips of at least {self.min_frames} pictures, got num_frames {frames}.")
        if self.size is not None and sides != (self.size, self.size):
            wanted = f"{self.size} x {self.size}"
            raise ValueError(f"a {type(self).__name__} reads pictures of {wanted} pixels, got {' x '.join(map(str, sides))}.")
