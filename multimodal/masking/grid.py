"""What maskings of rows and columns have in common.

Letters in shapes: b items, h rows, w columns, n tokens.
"""

from abc import abstractmethod
from typing import ClassVar

from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.protocols import Masking, Tokens


class GridMasking(Masking):
    """Hides places of a two-dimensional grid, which all items share."""

    kind: ClassVar[str]
    """How messages call the masking."""

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " b"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden.

        Raises:
            ValueError: the tokens are not a two-dimensional grid.
        """
        if tokens.grid is None or len(tokens.grid) != 2:
            raise ValueError(f"{self.kind} masking needs a grid of rows and columns, got {tokens.grid}: use RandomMasking for sequences.")
        return self.draw(seed, *tokens.grid).flatten()

    @abstractmethod
    def draw(self, seed: Int[Tensor, " b"], height: int, width: int) -> Bool[Tensor, "b h w"]:
        """Return one mask for each seed."""
