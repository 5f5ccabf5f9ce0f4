"""Mix items: each is seen at places where the others are hidden."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens


class MixedMasking(Masking):
    """Share the places of several items among them, so that together they fill one grid (MixedAE, https://arxiv.org/abs/2303.17152).

    Items in a row make a group. Each place is seen of one item of its group, drawn at random, and the group is encoded as one sequence;
    each item sees an equal share of the places, to one. The last items of a batch, where these are no full group, see as many places, and
    the sequence has fewer tokens.

    Unlike other maskings, what an item sees depends on the items before it in the batch.

    Args:
        num_mixed: items of a group, at least 2. The share that is hidden of an item is ``1 - 1 / num_mixed``.
    """

    def __init__(self, num_mixed: int = 4) -> None:
        if num_mixed < 2:
            raise ValueError(f"num_mixed must be at least 2, got {num_mixed}.")
        self.num_mixed = num_mixed

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden.

        Raises:
            ValueError: items differ in length, so that they have no places in common.
        """
        if tokens.grid is None:
            raise ValueError("items are mixed place by place, which needs grids: use RandomMasking for sequences.")
        count = len(seed)
        if not count:
            return torch.zeros(0, dtype=torch.bool, device=seed.device)
        size = len(tokens.inputs) // count
        member = torch.arange(count, device=seed.device) % self.num_mixed
        first = seed[torch.arange(count, device=seed.device) - member]  # the seed of a group is that of its first item
        place = torch.arange(size, device=seed.device).expand(count, size)
        rank = uniform(first[:, None].expand_as(place), place, stream=1).argsort(1).argsort(1)  # the same for a whole group
        return (rank % self.num_mixed != member[:, None]).flatten()
