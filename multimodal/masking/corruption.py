"""What the encoder sees at hidden positions."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.protocols import Corruption, Embed, Shown, Tokens


class MaskReplaceKeep(Corruption):
    """Show the mask, a random token, or the true token (BERT's 80/10/10, https://arxiv.org/abs/1810.04805).

    Of a token whose fields are hidden in part, the others are shown as they are. There is one draw for each token: its hidden fields show
    the mask, random ids or the true ones together.

    Args:
        mask: share of the hidden positions that show the mask.
        replace: share that shows a random token, as ``Embed.random_inputs`` draws it. The rest shows the true token.
    """

    hides_fields = True

    def __init__(self, mask: float = 0.8, replace: float = 0.1) -> None:
        if mask < 0 or replace < 0 or mask + replace > 1 + 1e-9:
            raise ValueError(f"mask and replace must be shares that sum to at most 1, got {mask} and {replace}.")
        self.mask, self.replace = mask, replace

    def __call__(self, embed: Embed, tokens: Tokens, masked: Bool[Tensor, "n ..."], seed: Int[Tensor, " items"]) -> Shown:
        """Return the tokens as shown, and True where the mask is shown."""
        if self.mask == 1:
            return Shown(tokens, masked)
        item, position = tokens.item, tokens.position
        action = uniform(seed[item], position, stream=2).view(-1, *[1] * (masked.ndim - 1))
        shown_as_mask = masked & (action < self.mask)
        if self.replace == 0:
            return Shown(tokens, shown_as_mask)
        replaced = masked & (action >= self.mask) & (action < self.mask + self.replace)
        random = embed.random_inputs(tokens, uniform(seed[item], position, stream=3))
        where = replaced if replaced.ndim == tokens.inputs.ndim else replaced.view(-1, *[1] * (tokens.inputs.ndim - 1))
        return Shown(tokens.with_inputs(torch.where(where, random, tokens.inputs)), shown_as_mask)


class Drop(Corruption):
    """Leave hidden tokens out: the encoder works on the visible ones alone, and a decoder predicts (MAE, https://arxiv.org/abs/2111.06377).

    An item that would be hidden as a whole shows its first token, which is then not predicted: there must be something to predict from.
    """

    def __call__(self, embed: Embed, tokens: Tokens, masked: Bool[Tensor, " n"], seed: Int[Tensor, " items"]) -> Shown:
        """Return the tokens, and True at the visible ones."""
        shown = torch.zeros_like(tokens.lengths).index_add_(0, tokens.item, (~masked).to(tokens.lengths.dtype))
        first = (shown == 0)[tokens.item] & (tokens.position == 0)
        return Shown(tokens, torch.zeros_like(masked), visible=~masked | first)


class HidePlaces(Corruption):
    """Show a token but not its place, which can then be predicted (MP3, https://arxiv.org/abs/2207.07611; DropPos, arXiv 2309.03576).

    Added positions are left out, relative ones count the token as one without a place, like the class token. An encoder that reads the
    order of tokens would know the places all the same, and is refused.
    """

    hides_places = True

    def __call__(self, embed: Embed, tokens: Tokens, masked: Bool[Tensor, " n"], seed: Int[Tensor, " items"]) -> Shown:
        """Return the tokens, the hidden ones without their places."""
        return Shown(tokens.without_places(masked), torch.zeros_like(masked))
