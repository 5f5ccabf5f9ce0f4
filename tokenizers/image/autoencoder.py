"""An autoencoder with any quantizer between: images -> a grid of ids -> images.

Letters in shapes: b images, c channels, h rows and w columns of tokens, n tokens of all images, k fields of a token, e width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.tokenizers.image.convolutions import ResidualBlock, centred, doubling_stages, halving_stages
from multimodal.tokenizers.pretrained import TokenizerLoss, TrainableTokenizer
from multimodal.tokenizers.quantizers import FiniteScalarQuantizer, Quantizer


class QuantizedAutoencoder(TrainableTokenizer):
    """The encoder and decoder of ``DiscreteVAE`` with vectors between that are quantized (VQ-VAE, https://arxiv.org/abs/1711.00937).

    The loss is the mean squared error of the pixels and what the quantizer adds. Each stage halves or doubles the sides.

    Args:
        quantizer: builds the quantizer from the width of the vectors: a ``Codebook``, ``EuclideanCodebook``, ``FiniteScalarQuantizer``,
            ``LookupFreeQuantizer`` or ``ResidualQuantizer``.
        channels: of the images.
        num_layers: stride-2 stages; a token covers ``2 ** num_layers`` pixels a side.
        width: channels of the convolutions.
        dim: width of the vectors that are quantized.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        quantizer: Callable[[int], Quantizer] = FiniteScalarQuantizer,
        channels: int = 3,
        num_layers: int = 3,
        width: int = 64,
        dim: int = 32,
    ) -> None:
        super().__init__()
        if min(channels, num_layers, width, dim) < 1:
            sizes = f"{channels}, {num_layers}, {width} and {dim}"
            raise ValueError(f"channels, num_layers, width and dim must be at least 1, got {sizes}.")
        self.channels, self.stride = channels, 2**num_layers
        down, up = halving_stages(channels, width, num_layers), doubling_stages(dim, width, num_layers)
        self.encoder = nn.Sequential(*down, ResidualBlock(width), nn.ReLU(), nn.Conv2d(width, dim, 1))
        self.quantizer = quantizer(dim)
        self.decoder = nn.Sequential(*up, ResidualBlock(width), nn.ReLU(), nn.Conv2d(width, channels, 1))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Those of the quantizer."""
        return self.quantizer.vocab_sizes

    def vectors(self, pixels: UInt8[Tensor, "b c height width"]) -> Float[Tensor, "b h w e"]:
        """Return what is quantized.

        Raises:
            ValueError: other channels than the tokenizer's, or sides that the stride does not divide.
        """
        return self.encoder(centred(pixels, self.channels, self.stride)).movedim(1, -1)

    def encode(self, values: UInt8[Tensor, "b c height width"], lengths: Tensor | None = None) -> Int[Tensor, "n ..."]:
        """Return the ids, row by row, image after image."""
        return self.quantizer.encode(self.vectors(values).flatten(0, 2))

    def decode(self, ids: Int[Tensor, "b h w *k"]) -> Float[Tensor, "b c height width"]:
        """Return the pixels that the ids stand for, in [0, 1]."""
        return self._pixels(self.quantizer.lookup(ids)).clamp(0, 1)

    def training_loss(self, values: UInt8[Tensor, "b c height width"], progress: float, lengths: Tensor | None = None) -> TokenizerLoss:
        """Return the loss of a batch; ``progress`` is the share of the run that is done, in [0, 1]."""
        vectors = self.vectors(values)
        quantized = self.quantizer.quantize(vectors.flatten(0, 2))
        reconstruction = F.mse_loss(self._pixels(quantized.vectors.view(vectors.shape)), values.float() / 255)
        parts = {"reconstruction": reconstruction, **quantized.parts}
        return TokenizerLoss(reconstruction + quantized.loss, quantized.ids, parts)

    def _pixels(self, vectors: Float[Tensor, "b h w e"]) -> Tensor:
        return self.decoder(vectors.movedim(-1, 1)) * 0.5 + 0.5
