"""The self-distilled tokenizer of BEATs: spectrograms -> ids.

Letters in shapes: b items, f frames, m mel bins, n patches of all items, d width, e width of a code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.protocols import Embed, Preparation, Transform
from multimodal.tokenizers.pretrained import PretrainedTokenizer
from multimodal.tokenizers.quantizers.nearest import nearest_code


class BeatsTokenizer(PretrainedTokenizer):
    """An encoder of spectrogram patches, a projection to unit vectors, and the code nearest to each (BEATs, https://arxiv.org/abs/2212.09058).

    An id stands for what a teacher makes of a patch and its surroundings, not for sound: there is no way back from ids to a spectrogram.
    (unilm ``beats/Tokenizers.py``.)

    Args:
        encoder: builds the encoder.
        embed: builds the embedding of spectrograms from the encoder's width.
        num_codes: size of the vocabulary.
        code_dim: width of a code.
    """

    codebook: Tensor

    def __init__(self, encoder: Callable[[], nn.Module], embed: Callable[[int], Embed], num_codes: int = 1024, code_dim: int = 256) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.encoder: nn.Module = encoder()
        dim = cast(int, self.encoder.dim)
        self.embed = embed(dim)
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, code_dim))
        self.register_buffer("codebook", F.normalize(torch.randn(num_codes, code_dim), dim=-1))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field of ``num_codes`` ids."""
        return (self.num_codes,)

    def check_source(self, source: Transform | Preparation) -> None:
        """Refuse statistics of another gain than that of the spectrograms; see ``check_statistics``."""
        self.embed.check_source(source)

    def encode(self, values: Float[Tensor, "*f m"], lengths: Int[Tensor, " b"] | None = None) -> Int[Tensor, " n"]:
        """Return the id of each patch, in the order of the embedding's tokens.

        Args:
            values: spectrograms, ``(b, f, m)`` of one length, or ``(f, m)`` end to end with ``lengths``.
            lengths: frames of each item; None: all have the same.

        Raises:
            ValueError: an item is smaller than a patch, or there are no lengths where they are needed.
        """
        return nearest_code(self.vectors(values, lengths), self.codebook)

    def vectors(self, values: Float[Tensor, "*f m"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "n e"]:
        """Return the unit vector of each patch that its code is looked up with; arguments as of ``encode``."""
        tokens = self.embed.tokens(values, lengths)
        encoded = self.encoder(self.embed(tokens), tokens.item, tokens.coordinates)
        with torch.autocast(values.device.type, enabled=False):  # rounded vectors would get other ids
            return F.normalize(self.project(encoded.tokens.float()), dim=-1)
