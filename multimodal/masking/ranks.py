"""Which tokens of an item come first.

Letters in shapes: n tokens.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.protocols import Tokens


def rank_within(tokens: Tokens, values: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return the place of each token, from 0, among those of its item by ascending values; of equal ones the earlier comes first."""
    order = values.argsort(stable=True)
    order = order[tokens.item[order].argsort(stable=True)]
    rank = order.new_empty(len(order))
    rank[order] = tokens.position  # the items lie end to end
    return rank


def count_within(tokens: Tokens, which: Bool[Tensor, " n"]) -> Int[Tensor, " items"]:
    """Return of how many tokens of each item ``which`` is True."""
    return tokens.lengths.new_zeros(len(tokens.lengths)).index_add_(0, tokens.item, which.to(tokens.lengths.dtype))
