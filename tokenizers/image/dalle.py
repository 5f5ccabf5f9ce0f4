"""DALL-E's discrete VAE: images <-> a grid of 8192 visual tokens, as BEiT and FLAVA predict them.

Letters in shapes: b images, c channels, h rows and w columns of tokens, v ids.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.tokenizers.pretrained import PretrainedTokenizer

NUM_GROUPS = 4
STRIDE = 2 ** (NUM_GROUPS - 1)
MARGIN = 0.1
"""Pixels in [0, 1] are mapped to [0.1, 0.9], inside the range of the decoder's sigmoid."""
ENCODER_KERNELS, DECODER_KERNELS = (3, 3, 3, 1), (1, 3, 3, 3)


class DalleBlock(nn.Module):
    """Four convolutions after ReLUs, with a quarter of the width between, added to the input after a division.

    Args:
        width_in: channels of the input.
        width: channels of the output.
        kernels: sides of the four convolutions.
        num_layers: blocks of the whole network; the branch is divided by its square, which keeps deep networks stable.
    """

    def __init__(self, width_in: int, width: int, kernels: Sequence[int], num_layers: int) -> None:
        super().__init__()
        widths = [width_in, *[width // 4] * 3, width]
        self.shortcut = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in zip(widths, widths[1:], kernels, strict=False))
        self.gain = num_layers**-2

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        branch = x
        for conv in self.convs:
            branch = conv(F.relu(branch))
        return self.shortcut(x) + self.gain * branch


class DalleTokenizer(PretrainedTokenizer):
    """The discrete VAE of DALL-E, for images of 3 channels (https://arxiv.org/abs/2102.12092; openai/DALL-E ``dall_e/encoder.py``).

    A token covers 8 pixels a side: BEiT gives it half the size of the encoder's images, so that patches of 16 pixels and tokens lie on
    one grid. The model is not trained here, ``DiscreteVAE`` is the one to train.

    Args:
        num_tokens: size of the vocabulary.
        width: channels of the first group of the encoder and the last of the decoder; the others have 2, 4 and 8 times as many.
        code_dim: channels of a code in the decoder.
        blocks_per_group: residual blocks of each of the 4 groups.
        decoder: whether there is one; without, ids cannot be decoded.
    """

    def __init__(
        self, num_tokens: int = 8192, width: int = 256, code_dim: int = 128, blocks_per_group: int = 2, decoder: bool = True
    ) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}.")
        self.num_tokens = num_tokens
        widths = [width * 2**group for group in range(NUM_GROUPS)]
        self.encoder = _network(3, widths, num_tokens, 7, 1, ENCODER_KERNELS, blocks_per_group, nn.MaxPool2d(2))
        up = nn.Upsample(scale_factor=2)
        self.decoder = _network(num_tokens, widths[::-1], 6, 1, 1, DECODER_KERNELS, blocks_per_group, up, code_dim) if decoder else None

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field of ``num_tokens`` ids."""
        return (self.num_tokens,)

    def logits(self, pixels: UInt8[Tensor, "b 3 height width"]) -> Float[Tensor, "b v h w"]:
        """Return the scores of each id.

        Raises:
            ValueError: sides that are no multiples of 8 pixels.
        """
        if pixels.shape[2] % STRIDE or pixels.shape[3] % STRIDE:
            raise ValueError(f"this tokenizer reads images whose sides {STRIDE} divides, got {tuple(pixels.shape[2:])}.")
        with torch.autocast(pixels.device.type, enabled=False):  # half precision changes ids
            return self.encoder((1 - 2 * MARGIN) * (pixels.float() / 255) + MARGIN)

    def encode(self, values: UInt8[Tensor, "b 3 height width"], lengths: Tensor | None = None) -> Int[Tensor, " n"]:
        """Return the most likely ids, row by row, image after image."""
        return self.logits(values).argmax(1).flatten()

    def decode(self, ids: Int[Tensor, "b h w"]) -> Float[Tensor, "b 3 height width"]:
        """Return the pixels that the ids stand for, in [0, 1].

        Raises:
            ValueError: the tokenizer has no decoder.
        """
        if self.decoder is None:
            raise ValueError("this tokenizer has no decoder: import decoder.pkl beside encoder.pkl.")
        first = self.decoder[0]
        codes = F.embedding(ids, first.weight.flatten(1).T) + first.bias  # the convolution of one-hot vectors, without making them
        mean = self.decoder[1:](codes.permute(0, 3, 1, 2))[
            :, :3
        ].sigmoid()  # b h w e -> b e h w; the other channels are of the Laplace scale
        return ((mean - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)


def _network(
    width_in: int,
    widths: Sequence[int],
    width_out: int,
    first_kernel: int,
    last_kernel: int,
    kernels: Sequence[int],
    blocks: int,
    between: nn.Module,
    first_width: int | None = None,
) -> nn.Sequential:
    """Return a convolution, groups of blocks with a change of size between them, and a last convolution."""
    first = widths[0] if first_width is None else first_width
    modules = OrderedDict[str, nn.Module](input=nn.Conv2d(width_in, first, first_kernel, padding=first_kernel // 2))
    previous = first
    for number, width in enumerate(widths, start=1):
        for block in range(1, blocks + 1):
            modules[f"group{number}_block{block}"] = DalleBlock(previous, width, kernels, len(widths) * blocks)
            previous = width
        if number < len(widths):
            modules[f"between{number}"] = between
    modules["relu"], modules["output"] = nn.ReLU(), nn.Conv2d(previous, width_out, last_kernel)
    return nn.Sequential(modules)
