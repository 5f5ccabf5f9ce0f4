"""What a picture adds to those before and after it.

Letters in shapes: i items, t times, p places, n tokens, w width of a vector.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from multimodal.batch import Items
from multimodal.objectives.targets import TokenValues
from multimodal.protocols import Embed, Target, Tokens


class BetweenTimes(Target):
    """The values of a token, less the mean of those at its place one time before and one after.

    A model that predicts nothing, 0, interpolates then. For ``FrameMasking``, which leaves the neighbours of a single hidden time to be
    seen; at the first and the last time the difference to the only neighbour is asked for.

    Args:
        scale: what values are divided by.
    """

    def __init__(self, scale: float = 255.0) -> None:
        super().__init__()
        self.values = TokenValues(normalize=False, scale=scale)

    def sizes(self, embed: Embed) -> tuple[int, ...]:
        """Return how many values a token has."""
        return self.values.sizes(embed)

    def forward(self, items: Items, tokens: Tokens) -> Float[Tensor, "n w"]:
        """Return the differences.

        Raises:
            ValueError: the tokens are no grid of several times and of places.
        """
        values = self.values(items, tokens)
        return values - neighbours(values, tokens)


def neighbours(values: Float[Tensor, "n w"], tokens: Tokens) -> Float[Tensor, "n w"]:
    """Return the mean of the values at a token's place one time before and one after, where these are.

    Args:
        values: of all tokens.
        tokens: full grids, whose first axis is time.

    Raises:
        ValueError: they are not.
    """
    if tokens.grid is None or len(tokens.grid) < 2 or tokens.grid[0] < 2:
        raise ValueError(f"differences of times need a grid of at least 2 times, and of places, got {tokens.grid}.")
    own = values.view(len(tokens.lengths), tokens.grid[0], -1, values.shape[1])  # i t p w
    mean = own.clone()
    mean[:, 1:-1] = (own[:, :-2] + own[:, 2:]) / 2
    mean[:, 0], mean[:, -1] = own[:, 1], own[:, -2]
    return mean.view_as(values)
