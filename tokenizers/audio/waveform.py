"""Waveforms -> tokens.

Letters in shapes: b items, s samples of all items, n tokens of all items, t tokens of an item, c channels, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn import LayerNorm
from multimodal.protocols import Embed, Tokens

LEAST_VARIANCE = 1e-7
LayerNorms = Literal["group", "layer", "none"]


class WaveformLayer(nn.Module):
    """A convolution along time, a norm and GELU.

    Args:
        inputs: channels before.
        outputs: channels after.
        kernel: samples that it sees.
        stride: samples from one place to the next.
        norm: "group": of each channel over time; "layer": of each place over channels; "none".
        bias: whether the convolution has one.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: LayerNorms, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=bias)
        self.kind = norm
        norms = {"group": lambda: nn.GroupNorm(outputs, outputs), "layer": lambda: nn.LayerNorm(outputs), "none": nn.Identity}
        self.norm = norms[norm]()
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, x: Float[Tensor, "b i t"]) -> Float[Tensor, "b c u"]:
        """Transform items of one length."""
        x = self.conv(x)
        return F.gelu(self.norm(x.transpose(1, 2)).transpose(1, 2) if self.kind == "layer" else self.norm(x))


class WaveformEmbed(Embed):
    """Seven convolutions over the waveform, a norm and a linear layer (wav2vec 2.0, https://arxiv.org/abs/2006.11477; HuBERT).

    A token sees 400 samples, and one begins every 320. The mask replaces a token after the linear layer; each item is treated by itself,
    whatever else is in the batch.

    Args:
        dim: width of the encoder.
        channels: of each convolution.
        kernels: samples that each convolution sees.
        strides: steps of each convolution.
        norm: "group": the first convolution has a norm of each channel over the whole item (base); "layer": all have one over channels
            (large).
        bias: whether the convolutions have one.
        eps: of the norm before the linear layer.
        normalize: whether each waveform is shifted and scaled to mean 0 and variance 1, as the published weights need it.

    Raises:
        ValueError: ``channels``, ``kernels`` and ``strides`` of different lengths, or an unknown norm.
    """

    def __init__(
        self,
        dim: int,
        channels: Sequence[int] = (512,) * 7,
        kernels: Sequence[int] = (10, 3, 3, 3, 3, 2, 2),
        strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2),
        norm: Literal["group", "layer"] = "group",
        bias: bool = False,
        eps: float = 1e-5,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if not len(channels) == len(kernels) == len(strides) > 0:
            lengths = f"{len(channels)}, {len(kernels)} and {len(strides)}"
            raise ValueError(f"channels, kernels and strides must have one entry for each convolution, got {lengths}.")
        if norm not in ("group", "layer"):
            raise ValueError(f"norm must be 'group' or 'layer', got {norm!r}.")
        kinds: list[LayerNorms] = [norm if norm == "layer" or i == 0 else "none" for i in range(len(channels))]
        inputs = [1, *channels[:-1]]
        self.layers = nn.ModuleList(
            WaveformLayer(inputs[i], channels[i], kernels[i], strides[i], kind, bias) for i, kind in enumerate(kinds)
        )
        self.kernels, self.strides, self.normalize = tuple(kernels), tuple(strides), normalize
        self.norm, self.proj = LayerNorm(channels[-1], eps=eps), nn.Linear(channels[-1], dim)
        self.mask_token = nn.Parameter(torch.empty(dim).uniform_())

    def num_tokens(self, num_samples: int) -> int:
        """Return how many tokens a waveform makes; 0 where it is too short for one."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            num_samples = max(0, (num_samples - kernel) // stride + 1)
        return num_samples

    def tokens(self, values: Float[Tensor, "*b s"], lengths: Int[Tensor, " b"] | None = None) -> Tokens:
        """Run the convolutions; the coordinate of a token is its index in the item.

        Args:
            values: ``(b, samples)`` of items of one length, or ``(s,)`` with ``lengths``.
            lengths: samples of each item; None: all have the same.

        Raises:
            ValueError: an item is too short for a token, or there are no lengths where they are needed.
        """
        if values.ndim != (2 if lengths is None else 1):
            raise ValueError(f"waveforms must be (items, samples), or (samples,) with lengths, got {tuple(values.shape)}.")
        sizes = [values.shape[1]] * len(values) if lengths is None else lengths.tolist()
        counts = [self.num_tokens(size) for size in sizes]
        if 0 in counts:
            raise ValueError(f"a sound of {sizes[counts.index(0)]} samples is too short for a token: set min_seconds of the transform.")
        inputs = self._convolve(values).flatten(0, 1) if lengths is None else self._convolve_ragged(values, sizes)
        index = torch.cat([torch.arange(count, device=values.device) for count in counts])
        return Tokens(inputs, torch.tensor(counts, device=values.device), index[:, None])

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Project tokens; the mask replaces them after the projection, as published."""
        x = self.proj(self.norm(tokens.inputs))
        return x if shown_as_mask is None else torch.where(shown_as_mask[:, None], self.mask_token.to(x.dtype), x)

    def _convolve(self, samples: Float[Tensor, "b s"]) -> Float[Tensor, "b t c"]:
        if self.normalize:
            variance, mean = torch.var_mean(samples, 1, correction=0, keepdim=True)
            samples = (samples - mean) / (variance + LEAST_VARIANCE).sqrt()
        x = samples[:, None]
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)

    def _convolve_ragged(self, values: Tensor, sizes: list[int]) -> Float[Tensor, "n c"]:
        """Convolve items of equal length together, and return the tokens of all in their order."""
        items = values.split(sizes)
        made: dict[int, Tensor] = {}
        for size in sorted(set(sizes)):
            members = [i for i, other in enumerate(sizes) if other == size]
            made.update(zip(members, self._convolve(torch.stack([items[i] for i in members])), strict=True))
        return torch.cat([made[i] for i in range(len(items))])
