"""A small trainable discrete VAE: images -> a grid of visual tokens -> images.

Letters in shapes: b images, c channels, h rows and w columns of tokens, v ids, e width of a code.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.tokenizers.image.convolutions import ResidualBlock, centred, doubling_stages, halving_stages
from multimodal.tokenizers.pretrained import TokenizerLoss, TrainableTokenizer


class DiscreteVAE(TrainableTokenizer):
    """Discrete VAE trained with the Gumbel-softmax (DALL-E, https://arxiv.org/abs/2102.12092; unilm ``beit/modeling_discrete_vae.py``).

    The temperature falls from ``temperature[0]`` to ``temperature[1]`` along a cosine over the run. A departure: the KL term pulls the
    *mean* use of ids over a batch to uniform, which spreads use over the codebook without making the choice of a single token less
    certain; the original pulls the distribution of each token.

    Args:
        num_tokens: size of the vocabulary.
        channels: of the images.
        num_layers: stride-2 stages; a token covers ``2 ** num_layers`` pixels a side.
        width: channels of the convolutions.
        codebook_dim: width of a code.
        temperature: of the Gumbel-softmax, at the start and the end of training.
        kl_weight: of the KL term, in nats per image-batch against the mean squared error per pixel.
    """

    def __init__(
        self,
        num_tokens: int = 8192,
        channels: int = 3,
        num_layers: int = 3,
        width: int = 64,
        codebook_dim: int = 64,
        temperature: tuple[float, float] = (1.0, 1 / 16),
        kl_weight: float = 1e-3,
    ) -> None:
        super().__init__()
        self.num_tokens, self.channels, self.num_layers = num_tokens, channels, num_layers
        self.temperature, self.kl_weight = temperature, kl_weight
        down, up = halving_stages(channels, width, num_layers), doubling_stages(codebook_dim, width, num_layers)
        self.encoder = nn.Sequential(*down, ResidualBlock(width), nn.ReLU(), nn.Conv2d(width, num_tokens, 1))
        self.codebook = nn.Embedding(num_tokens, codebook_dim)
        self.decoder = nn.Sequential(*up, ResidualBlock(width), nn.ReLU(), nn.Conv2d(width, channels, 1))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field of ``num_tokens`` ids."""
        return (self.num_tokens,)

    def logits(self, pixels: UInt8[Tensor, "b c height width"]) -> Float[Tensor, "b v h w"]:
        """Return the scores of each id.

        Raises:
            ValueError: other channels than the tokenizer's, or sides that the stride does not divide.
        """
        return self.encoder(centred(pixels, self.channels, 2**self.num_layers))

    def encode(self, values: UInt8[Tensor, "b c height width"], lengths: Tensor | None = None) -> Int[Tensor, " n"]:
        """Return the most likely ids, row by row, image after image."""
        return self.logits(values).argmax(1).flatten()

    def decode(self, ids: Int[Tensor, "b h w"]) -> Float[Tensor, "b c height width"]:
        """Return the pixels that the ids stand for, in [0, 1]."""
        return self._pixels(self.codebook(ids).permute(0, 3, 1, 2)).clamp(0, 1)  # b h w e -> b e h w

    def training_loss(self, values: UInt8[Tensor, "b c height width"], progress: float, lengths: Tensor | None = None) -> TokenizerLoss:
        """Return the loss of a batch; ``progress`` is the share of the run that is done, in [0, 1]."""
        logits = self.logits(values)
        start, end = self.temperature
        tau = end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
        choice = F.gumbel_softmax(logits, tau=tau, dim=1) if self.training else F.one_hot(logits.argmax(1), self.num_tokens).movedim(-1, 1)
        codes = torch.einsum("b v h w, v e -> b e h w", choice.to(self.codebook.weight.dtype), self.codebook.weight)
        reconstruction = F.mse_loss(self._pixels(codes), values.float() / 255)
        mean_use = logits.softmax(1).mean((0, 2, 3))
        kl = (mean_use * (mean_use.clamp(min=1e-9).log() + math.log(self.num_tokens))).sum()
        parts = {"reconstruction": reconstruction, "kl": kl, "temperature": logits.new_tensor(tau)}
        return TokenizerLoss(reconstruction + self.kl_weight * kl, logits.argmax(1).flatten(), parts)

    def _pixels(self, codes: Tensor) -> Tensor:
        return self.decoder(codes) * 0.5 + 0.5
