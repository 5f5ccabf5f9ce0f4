"""The first tokenizer of BEATs: a random projection of each patch.

Letters in shapes: b items, f frames, m mel bins, n patches of all items, q values of a patch, e width of a code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.protocols import Preparation, Transform
from multimodal.tokenizers.audio.features import check_statistics
from multimodal.tokenizers.audio.patches import cut_patches, patch_shape
from multimodal.tokenizers.pretrained import PretrainedTokenizer
from multimodal.tokenizers.quantizers.nearest import nearest_code


class RandomProjectionTokenizer(PretrainedTokenizer):
    """A random linear map of each patch, or two, and the nearest of random codes; nothing is trained (BEATs, https://arxiv.org/abs/2212.09058).

    By default two maps, each followed by a norm, as in ESPnet ``espnet2/beats/random_tokenizer.py``. The weights that the published BEATs
    began with were never released: theirs cannot be made again. With ``normalize_patches``, ``hidden_dim`` None and ``cosine`` it is that
    of BEST-RQ (https://arxiv.org/abs/2202.01855) as ``RandomProjectionQuantizer`` of vector-quantize-pytorch computes it.

    Loudness moves all patches the same way, so that without ``normalize_patches`` few codes are used where sounds die away: of 512 codes on
    the validation sounds of ``configs/data/sounds.yaml`` a perplexity of 34, with it 87, and as BEST-RQ with 32 values 179.

    Ids cannot be decoded.

    Args:
        patch_size: frames and bins of a patch: one number for both, or two.
        num_codes: size of the vocabulary.
        code_dim: width of a code.
        hidden_dim: width after the first map; None: there is only one map.
        mean: subtracted from the spectrogram.
        std: divides after that.
        seed: of the random weights.
        normalize_patches: shift and scale each patch to mean 0 and standard deviation 1 first, so that ids do not tell how loud it is.
        cosine: compare directions; otherwise the vectors are normalised to mean 0 and deviation 1 and distances compared.

    Raises:
        ValueError: a size below 1, or a standard deviation that is not positive.
    """

    first: Tensor | None
    second: Tensor
    codebook: Tensor

    def __init__(
        self,
        patch_size: int | Sequence[int] = 16,
        num_codes: int = 1024,
        code_dim: int = 256,
        hidden_dim: int | None = 512,
        mean: float = 15.41663,
        std: float = 13.11164,
        seed: int = 0,
        normalize_patches: bool = False,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        if min(num_codes, code_dim, hidden_dim or 1) < 1:
            raise ValueError(f"num_codes, code_dim and hidden_dim must be at least 1, got {num_codes}, {code_dim} and {hidden_dim}.")
        if std <= 0:
            raise ValueError(f"std must be positive, got {std}.")
        self.patch_shape, self.num_codes, self.mean, self.std = patch_shape(patch_size), num_codes, mean, std
        self.normalize_patches, self.cosine = normalize_patches, cosine
        generator, values = torch.Generator().manual_seed(seed), math.prod(self.patch_shape)
        first = None if hidden_dim is None else 2 * torch.rand(values, hidden_dim, generator=generator) - 1
        self.register_buffer("first", None if first is None else first * math.sqrt(6 / sum(first.shape)))  # Xavier's uniform
        inner = hidden_dim or values
        spread = math.sqrt(2 / (inner + code_dim))
        self.register_buffer("second", torch.randn(inner, code_dim, generator=generator) * spread)  # Xavier's normal
        self.register_buffer("codebook", torch.randn(num_codes, code_dim, generator=generator))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field of ``num_codes`` ids."""
        return (self.num_codes,)

    def check_source(self, source: Transform | Preparation) -> None:
        """Refuse statistics of another gain than that of the spectrograms; see ``check_statistics``."""
        check_statistics(self.mean, source)

    def encode(self, values: Float[Tensor, "*f m"], lengths: Int[Tensor, " b"] | None = None) -> Int[Tensor, " n"]:
        """Return the id of each patch, first those of the first frames.

        Args:
            values: spectrograms, ``(b, f, m)`` of one length, or ``(f, m)`` end to end with ``lengths``.
            lengths: frames of each item; None: all have the same.

        Raises:
            ValueError: an item is smaller than a patch, or there are no lengths where they are needed.
        """
        patches = cut_patches(values, lengths, self.patch_shape, self.patch_shape).inputs
        with torch.autocast(values.device.type, enabled=False):  # rounded vectors would get other ids
            x = (patches.float() - self.mean) / self.std
            x = F.layer_norm(x, x.shape[-1:]) if self.normalize_patches else x
            x = x if self.first is None else F.layer_norm(x @ self.first, self.first.shape[1:])
            x = x @ self.second
            if self.cosine:
                return nearest_code(F.normalize(x, dim=-1), F.normalize(self.codebook, dim=-1))
            return nearest_code(F.layer_norm(x, x.shape[-1:]), self.codebook)
