"""VQ-KD, the tokenizer of BEiT v2: patches whose codes stand for a teacher's features.

Letters in shapes: b images, n patches of all images, h rows and w columns of patches, l patches of an image, k fields of a token, e width
of a code, t width of the teacher's features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from multimodal.nn import Attention, Encoder, Frozen, LearnedPosition, Mlp
from multimodal.protocols import Teacher
from multimodal.tokenizers.distillation import distillation_loss, teacher_width
from multimodal.tokenizers.image.embed import PatchEmbed
from multimodal.tokenizers.pretrained import TokenizerLoss, TrainableTokenizer
from multimodal.tokenizers.quantizers import Codebook, Quantizer


class VqKdTokenizer(TrainableTokenizer):
    """A ViT, a small code for each patch, and a ViT that turns codes into a teacher's features (BEiT v2, https://arxiv.org/abs/2208.06366).

    Images are uint8, of one size; they are scaled to [-1, 1] by their range, which is fixed, and not by the values in a batch. Encoding
    changes no statistics. The codes are found in float32 also under autocast. The loss is the mean over patches of 1 - cosine of the
    decoder's and the teacher's features, and the quantizer's own loss.

    Args:
        num_codes: size of the vocabulary.
        code_dim: width of a code.
        dim: width of the encoder.
        depth: layers of the encoder.
        num_heads: attention heads of the encoder.
        hidden_dim: width of the MLP of the encoder.
        patch_size: side of a patch, in pixels.
        channels: of the images.
        grid: rows and columns of patches.
        teacher_dim: width of the features that the decoder makes; 0: there is no decoder. None: that of ``teacher``.
        decoder_dim: width of the decoder.
        decoder_depth: layers of the decoder. Published: 1 or 3.
        decoder_heads: attention heads of the decoder.
        decoder_hidden_dim: width of the MLP of the decoder.
        quantizer: builds the quantizer from ``code_dim``, and says how many codes there are (``num_codes`` must then be None). None: a
            ``Codebook`` of ``num_codes``.
        teacher: whose features the codes are to keep. It is needed for training alone, and not saved.

    Raises:
        ValueError: the teacher's width is another one, or both or none of ``num_codes`` and ``quantizer`` are given.
    """

    version: ClassVar[int] = 2
    for_training: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(
        self,
        num_codes: int | None = 8192,
        code_dim: int = 32,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        hidden_dim: int = 3072,
        patch_size: int = 16,
        channels: int = 3,
        grid: Sequence[int] = (14, 14),
        teacher_dim: int | None = 512,
        decoder_dim: int = 768,
        decoder_depth: int = 3,
        decoder_heads: int = 12,
        decoder_hidden_dim: int = 3072,
        quantizer: Callable[[int], Quantizer] | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        teacher_dim = teacher_width(teacher, teacher_dim)
        self.init_args = self.init_args | {"teacher_dim": teacher_dim}  # what is saved has no teacher to ask
        self.grid, self.patch_size = (grid[0], grid[1]), patch_size
        position = partial(LearnedPosition, size=self.grid)
        self.embed = PatchEmbed(dim, patch_size, channels, position=position)
        del self.embed.mask_token  # a tokenizer sees whole images
        self.encoder = _trunk(dim, depth, num_heads, hidden_dim)
        self.to_code = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, code_dim))
        self.quantizer = _quantizer(quantizer, num_codes, code_dim)
        self.from_code = nn.Linear(code_dim, decoder_dim) if teacher_dim else None
        self.position = position(decoder_dim) if teacher_dim else None
        self.decoder = _trunk(decoder_dim, decoder_depth, decoder_heads, decoder_hidden_dim) if teacher_dim else None
        layers = (nn.Linear(decoder_dim, decoder_dim), nn.Tanh(), nn.Linear(decoder_dim, teacher_dim)) if teacher_dim else ()
        self.to_feature = nn.Sequential(*layers)
        self.teacher = None if teacher is None else Frozen(teacher)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Those of the quantizer; one field, of as many ids as there are codes, for a codebook."""
        return self.quantizer.vocab_sizes

    def code_vectors(self, pixels: UInt8[Tensor, "b c height width"]) -> Float[Tensor, "n e"]:
        """Return what is compared with the codes, of patches row by row, image after image; its length does not matter.

        Raises:
            ValueError: images of another size than the tokenizer's.
        """
        wanted = tuple(side * self.patch_size for side in self.grid)
        if tuple(pixels.shape[2:]) != wanted:
            raise ValueError(f"this tokenizer reads images of {wanted[0]} x {wanted[1]} pixels, got {pixels.shape[2]} x {pixels.shape[3]}.")
        tokens = self.embed.tokens(pixels)
        encoded, _ = self.encoder.forward_dense(self.embed(tokens).unflatten(0, (len(pixels), -1)))
        with torch.autocast(pixels.device.type, enabled=False):  # half precision changes ids
            return self.to_code(encoded[:, 1:].flatten(0, 1).float())

    @torch.no_grad()
    def encode(self, values: UInt8[Tensor, "b c height width"], lengths: Tensor | None = None) -> Int[Tensor, "n ..."]:
        """Return the ids of the patches, row by row, image after image."""
        return self.quantizer.encode(self.code_vectors(values))

    def decode(self, ids: Int[Tensor, "b h w *k"]) -> Float[Tensor, "b l t"]:
        """Return the teacher's features that the ids stand for, row by row.

        Raises:
            ValueError: the tokenizer has no decoder, or the ids lie on another grid.
        """
        if tuple(ids.shape[1:3]) != self.grid:
            raise ValueError(f"this tokenizer decodes ids on a grid of {self.grid}, got {tuple(ids.shape[1:3])}.")
        return self.features_of(self.quantizer.lookup(ids.flatten(1, 2)))

    def training_loss(self, values: UInt8[Tensor, "b c height width"], progress: float, lengths: Tensor | None = None) -> TokenizerLoss:
        """Return the loss of a batch; ``progress`` has no effect. In training mode the codes move.

        Raises:
            ValueError: there is no teacher, its features are not one for each patch, or there is no decoder.
        """
        wanted = self.teacher_features(values)
        quantized = self.quantizer.quantize(self.code_vectors(values).flatten(0, -2))
        made = self.features_of(quantized.vectors.unflatten(0, (len(values), -1))).flatten(0, 1)
        return distillation_loss(made, wanted, quantized)

    def teacher_features(self, values: UInt8[Tensor, "b c height width"]) -> Float[Tensor, "n t"]:
        """Return the teacher's features of the patches, row by row, image after image.

        Raises:
            ValueError: there is no teacher, or its features are not one for each patch.
        """
        if self.teacher is None:
            raise ValueError("this tokenizer has no teacher, which is not saved with it: build it with one to train it.")
        features: Tensor = self.teacher(values)
        patches = len(values) * self.grid[0] * self.grid[1]
        if len(features) != patches:
            each = len(features) / max(len(values), 1)
            raise ValueError(
                f"the teacher gives {each:g} features for an image, but {self.grid[0]} x {self.grid[1]} patches need one each: "
                "set the size in pixels that the teacher sees to rows and columns times its patch size."
            )
        return features

    def features_of(self, codes: Float[Tensor, "b l e"]) -> Float[Tensor, "b l t"]:
        """Return what the decoder makes of codes; gradients pass.

        Raises:
            ValueError: the tokenizer has no decoder.
        """
        if self.from_code is None or self.decoder is None or self.position is None:
            raise ValueError("this tokenizer has no decoder: its checkpoint had none.")
        places = torch.cartesian_prod(*(torch.arange(side, device=codes.device) for side in self.grid)).view(-1, 2)
        decoded, _ = self.decoder.forward_dense(self.from_code(codes) + self.position(places))
        return self.to_feature(decoded[:, 1:])


def _trunk(dim: int, depth: int, num_heads: int, hidden_dim: int) -> Encoder:
    """Return an encoder like BEiT's, with positions that are added and neither relative bias nor layer scale."""
    attention, mlp = partial(Attention, bias="query_value"), partial(Mlp, hidden_dim=hidden_dim)
    return Encoder(dim, depth, num_heads, attention=attention, mlp=mlp, class_token=True, special_positions=True)


def _quantizer(builder: Callable[[int], Quantizer] | None, num_codes: int | None, code_dim: int) -> Quantizer:
    if builder is None and num_codes is not None:
        return Codebook(code_dim, num_codes)
    if builder is None or num_codes is not None:
        raise ValueError(f"num_codes must be None exactly where there is a quantizer, which says it itself; got {num_codes}.")
    return builder(code_dim)
