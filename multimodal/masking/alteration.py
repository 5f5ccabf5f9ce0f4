"""Hide parts of frames by changing their values.

Letters in shapes: n tokens, i items, t values of a token.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.protocols import Corruption, Embed, Shown, Tokens

ACTION, START, WIDTH, LOWEST, NOISY, RADIUS, ANGLE = range(11, 18)
"""Streams of the noise of an item, apart from those of maskings."""


class Alteration(Corruption):
    """Change the values of tokens in time, frequency and magnitude (Mockingjay, https://arxiv.org/abs/1910.12638; TERA, arXiv 2007.06028).

    - Time: one draw for each *item* decides what becomes of all its hidden tokens: they are zeroed; or each run of them is replaced by a
      run of the same item, from a place drawn at random; or they stay. They are predicted in all three cases.
    - Frequency: one band of values, as wide in all tokens of the item, is zeroed and predicted: also of tokens that are not hidden, of
      which nothing else is. Its width is drawn from 0 to ``frequency`` of the values, then where it begins.
    - Magnitude: items drawn at random get normal noise on all values. Nothing is predicted for that alone.

    Zero means the mean where the values were normalised before (``preparation``). A token that is zeroed keeps its position, and is no
    mask: so the encoder meets nothing in pretraining that it does not meet later.

    Args:
        zero: share of the items whose hidden tokens are zeroed.
        replace: share of the items whose hidden tokens are replaced. The rest keeps them.
        frequency: largest share of the values that the band takes, in [0, 1]. TERA: 0.2; Mockingjay: 0.
        noise: share of the items that get noise, in [0, 1].
        deviation: standard deviation of the noise.

    Raises:
        ValueError: a setting outside its range; when called, tokens that are no vectors of numbers.
    """

    def __init__(self, zero: float = 0.8, replace: float = 0.1, frequency: float = 0.0, noise: float = 0.0, deviation: float = 0.2) -> None:
        if zero < 0 or replace < 0 or zero + replace > 1 + 1e-9:
            raise ValueError(f"zero and replace must be shares that sum to at most 1, got {zero} and {replace}.")
        if not (0 <= frequency <= 1 and 0 <= noise <= 1):
            raise ValueError(f"frequency and noise must be shares in [0, 1], got {frequency} and {noise}.")
        if deviation <= 0:
            raise ValueError(f"deviation must be positive, got {deviation}; for no noise set noise to 0.")
        self.zero, self.replace, self.frequency, self.noise, self.deviation = zero, replace, frequency, noise, deviation

    def __call__(self, embed: Embed, tokens: Tokens, masked: Bool[Tensor, " n"], seed: Int[Tensor, " items"]) -> Shown:
        """Return the changed tokens; none of them is shown as the mask."""
        values = tokens.inputs
        if values.ndim != 2 or not values.is_floating_point():
            raise ValueError(f"alteration needs tokens of floating-point vectors, got {tuple(values.shape[1:])} of {values.dtype}.")
        band = self._band(seed, values.shape[1])[tokens.item]
        shown = self._in_time(tokens, masked, seed).masked_fill(band, 0.0)
        return Shown(tokens.with_inputs(shown + self._noise(tokens, seed)), torch.zeros_like(masked))

    def asked(self, tokens: Tokens, masked: Bool[Tensor, " n"], seed: Int[Tensor, " items"]) -> Bool[Tensor, "n t"]:
        """Return which values are to be predicted: all of hidden tokens, and the band of others."""
        return masked[:, None] | self._band(seed, tokens.inputs.shape[1])[tokens.item]

    def _in_time(self, tokens: Tokens, masked: Bool[Tensor, " n"], seed: Int[Tensor, " i"]) -> Float[Tensor, "n t"]:
        item, values = tokens.item, tokens.inputs
        action = _draw(seed, ACTION)[item]
        zeroed = masked & (action < self.zero)
        replaced = masked & (action >= self.zero) & (action < self.zero + self.replace)
        other = values[_other_runs(tokens, masked, seed)]
        return torch.where(replaced[:, None], other, values).masked_fill(zeroed[:, None], 0.0)

    def _band(self, seed: Int[Tensor, " i"], size: int) -> Bool[Tensor, "i t"]:
        """Return where the band of each item lies."""
        width = (_draw(seed, WIDTH) * (int(size * self.frequency + 1e-6) + 1)).long()
        lowest = (_draw(seed, LOWEST) * (size - width + 1)).long()
        place = torch.arange(size, device=seed.device)
        return (place >= lowest[:, None]) & (place < (lowest + width)[:, None])

    def _noise(self, tokens: Tokens, seed: Int[Tensor, " i"]) -> Float[Tensor, "n t"] | float:
        if self.noise == 0:
            return 0.0
        item, size = tokens.item, tokens.inputs.shape[1]
        counter = tokens.position[:, None] * size + torch.arange(size, device=seed.device)
        radius, angle = (uniform(seed[item][:, None].expand_as(counter), counter, stream) for stream in (RADIUS, ANGLE))
        normal = (-2 * torch.log1p(-radius)).sqrt() * (2 * math.pi * angle).cos()  # Box and Muller 1958
        return normal * self.deviation * (_draw(seed, NOISY) < self.noise)[item][:, None]


def _draw(seed: Int[Tensor, " i"], stream: int) -> Float[Tensor, " i"]:
    """Return one number for each item."""
    return uniform(seed, torch.zeros_like(seed), stream)


def _other_runs(tokens: Tokens, masked: Bool[Tensor, " n"], seed: Int[Tensor, " i"]) -> Int[Tensor, " n"]:
    """Return, for each token of a run of hidden ones, one of a run as long that begins anywhere in the item; for others themselves."""
    item, position = tokens.item, tokens.position
    own = torch.arange(len(item), device=seed.device)
    before = torch.zeros_like(masked)
    before[1:] = masked[:-1] & (position[1:] > 0)
    run = (masked & ~before).cumsum(0) - 1  # of hidden tokens, the number of their run
    hidden = masked.nonzero()[:, 0]
    first = (masked & ~before).nonzero()[:, 0]
    length = torch.bincount(run[hidden], minlength=len(first))
    spare = tokens.lengths[item[first]] - length
    begin = (uniform(seed[item[first]], position[first], START) * (spare + 1)).long()
    shift = (begin - position[first])[run[hidden]]
    return own.index_add(0, hidden, shift)
