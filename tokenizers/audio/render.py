"""Pictures of masked spectrograms and of what was predicted for them.

Letters in shapes: f frames, m mel bins, n patches, t rows (places in time), k bands, p frames and q bins of a patch, c colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from multimodal.protocols import Renderer, Target, Tokenizer
from multimodal.tokenizers.audio.patches import patch_shape

GREY = 128
"""Of what is hidden."""
PALE = 0.75
"""Share of white in the codes of what is visible."""
REACH = 18.4
"""Logarithms of energy from black to the loudest: 80 decibels."""
COLOURS = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
"""From quiet to loud, at equal distances; brightness grows evenly."""
GOLDEN = (0.6180340, 0.7548777, 0.5698403)
"""Multiples of these, without their whole part, never come close to each other soon (golden ratio; R2 sequence)."""


class SpectrogramRenderer(Renderer):
    """The spectrogram, the spectrogram with hidden patches in grey, and what was predicted; of ids also the true ones.

    Predicted values (target: ``TokenValues``) are drawn among the visible patches, in the colours of the item's own range; of normalised
    patches with the mean and deviation of the true ones, since no prediction tells them. Ids are drawn as colours, one for each code,
    because those of audio tokenizers cannot be decoded; visible patches are pale there, so that the hidden ones can be compared. Time goes
    right, frequency up. Frames and bins that do not fill a patch are left out.

    Args:
        patch_size: frames and bins of a patch, as of the embedding: one number for both, or two.
        frequency_first: whether all patches of a band stand together, as the embedding may have it.
        min_size: each side of a picture has at least so many pixels: frames and bins are enlarged by a whole factor each.
        max_frames: frames shown, from the first; at least those of a patch.

    Raises:
        ValueError: a size below 1, or ``max_frames`` below that of a patch.
    """

    columns: ClassVar[tuple[str, ...]] = ("spectrogram", "masked", "predicted", "codes")

    def __init__(
        self, patch_size: int | Sequence[int] = 16, frequency_first: bool = False, min_size: int = 192, max_frames: int = 1024
    ) -> None:
        self.patch_shape = patch_shape(patch_size)
        if min_size < 1:
            raise ValueError(f"min_size must be at least 1, got {min_size}.")
        if max_frames < self.patch_shape[0]:
            raise ValueError(f"max_frames must be at least the {self.patch_shape[0]} frames of a patch, got {max_frames}.")
        self.frequency_first, self.min_size, self.max_frames = frequency_first, min_size, max_frames

    def render(
        self,
        tokenizer: Tokenizer | Target,
        values: Float[Tensor, "f m"],
        ids: Tensor,
        predicted: Tensor,
        masked: Bool[Tensor, " n"],
    ) -> Mapping[str, Tensor]:
        """Return three pictures of predicted values, four of ids; see ``Renderer.render``.

        Raises:
            ValueError: the spectrogram has another number of patches than tokens, or what is predicted are neither ids nor values.
        """
        frames, bins = self._cut_sizes(values, len(masked))
        patches = self._patches(values[:frames, :bins])
        hidden = self._by_patch(masked, values)
        colours = coloured(self._spectrogram(patches, values), patches.float())
        pictures = [colours, torch.where(hidden, GREY, colours)]
        if isinstance(tokenizer, Target):
            made = torch.where(masked[:, None], tokenizer.restored(patches, predicted.float()), patches)
            pictures.append(coloured(self._spectrogram(made, values), patches.float()))
        else:
            pictures += [self._codes(x, tokenizer.vocab_sizes, hidden, values) for x in (predicted, ids)]
        return {name: self._enlarged(x) for name, x in zip(self.columns, pictures, strict=False)}

    def _cut_sizes(self, values: Tensor, num_tokens: int) -> tuple[int, int]:
        """Return how many frames and bins fill patches."""
        counts = [size // own for size, own in zip(values.shape, self.patch_shape, strict=True)]
        if counts[0] * counts[1] != num_tokens:
            size = " x ".join(map(str, self.patch_shape))
            raise ValueError(
                f"patches of {size} cut a spectrogram of {tuple(values.shape)} frames and bins into {counts[0]} x {counts[1]}, but there "
                f"are {num_tokens} tokens: set the patch_size of the SpectrogramRenderer to the embedding's, which must not overlap."
            )
        return counts[0] * self.patch_shape[0], counts[1] * self.patch_shape[1]

    @property
    def _order(self) -> str:
        return "(k t)" if self.frequency_first else "(t k)"

    def _patches(self, spectrogram: Float[Tensor, "f m"]) -> Float[Tensor, "n q"]:
        frames, bins = self.patch_shape
        return rearrange(spectrogram, f"(t p) (k q) -> {self._order} (p q)", p=frames, q=bins)

    def _spectrogram(self, patches: Tensor, like: Float[Tensor, "f m"]) -> Tensor:
        """Return the values of patches as a spectrogram ``(f, m)``."""
        frames, bins = self.patch_shape
        return rearrange(patches, f"{self._order} (p q) -> (t p) (k q)", p=frames, q=bins, k=like.shape[1] // bins)

    def _by_patch(self, flags: Tensor, like: Float[Tensor, "f m"]) -> Tensor:
        """Return a number of each patch at all its frames and bins."""
        return self._spectrogram(flags[:, None].expand(-1, self.patch_shape[0] * self.patch_shape[1]), like)

    def _codes(self, ids: Int[Tensor, "n ..."], sizes: Sequence[int], hidden: Bool[Tensor, "f m"], like: Tensor) -> UInt8[Tensor, "3 f m"]:
        number = torch.zeros_like(ids.reshape(len(ids), -1)[:, 0])
        for size, field in zip(sizes, ids.reshape(len(ids), -1).unbind(1), strict=True):
            number = number * size + field
        full = torch.stack([self._by_patch(colour, like) for colour in code_colours(number).unbind(1)])
        return torch.where(hidden, full, 255 * PALE + (1 - PALE) * full).round().to(torch.uint8)

    def _enlarged(self, picture: UInt8[Tensor, "3 f m"]) -> UInt8[Tensor, "3 height width"]:
        shown = picture[:, : self.max_frames].flip(2).transpose(1, 2)
        height, width = (-(-self.min_size // side) for side in shown.shape[1:])
        return shown.repeat_interleave(height, 1).repeat_interleave(width, 2)


def coloured(values: Float[Tensor, "f m"], range_of: Float[Tensor, "n q"]) -> UInt8[Tensor, "3 f m"]:
    """Return logarithms of energies as colours, the loudest of ``range_of`` the brightest and its quietest, or 80 dB less, the darkest."""
    loudest = range_of.max()
    quietest = torch.maximum(range_of.min(), loudest - REACH)
    anchors = torch.tensor(COLOURS, dtype=torch.float32, device=values.device)
    place = ((values.float() - quietest) / (loudest - quietest).clamp(min=1e-6)).clamp(0, 1) * (len(COLOURS) - 1)
    below = place.long().clamp(max=len(COLOURS) - 2)
    mixed = torch.lerp(anchors[below], anchors[below + 1], (place - below)[..., None])
    return mixed.round().to(torch.uint8).permute(2, 0, 1)


def code_colours(numbers: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Return a colour, of 0 to 255, for each number: always the same, and of neighbours unlike."""
    hue, strength, light = (numbers.double()[:, None] * torch.tensor(GOLDEN, device=numbers.device).double() % 1).float().unbind(1)
    saturation, value = 0.5 + 0.5 * strength, 0.5 + 0.5 * light
    place = (6 * hue[:, None] + torch.tensor([5.0, 3.0, 1.0], device=numbers.device)) % 6  # red, green and blue of a hue
    return 255 * value[:, None] * (1 - saturation[:, None] * torch.minimum(place, 4 - place).clamp(0, 1))
