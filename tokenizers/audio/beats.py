"""The self-distilled tokenizer of BEATs: spectrograms -> ids.

Letters in shapes: b items, f frames, m mel bins, n patches of all items, d width, e width of a code, t width of the teacher's features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn import Encoder, Frozen, pool_mean
from multimodal.protocols import Embed, Preparation, Teacher, Tokens, Transform
from multimodal.tokenizers.distillation import distillation_loss, teacher_width
from multimodal.tokenizers.pretrained import TokenizerLoss, TrainableTokenizer
from multimodal.tokenizers.quantizers import Codebook


class BeatsTokenizer(TrainableTokenizer):
    """An encoder of spectrogram patches, a projection to unit vectors, and the code nearest to each (BEATs, https://arxiv.org/abs/2212.09058).

    An id stands for what a teacher makes of a patch and its surroundings, not for sound: there is no way back from ids to a spectrogram.
    It is trained by a small transformer, the estimator, that turns codes into the features of a frozen teacher, which is the model of the
    iteration before: the loss is the mean of 1 - cosine, and the quantizer's commitment. A teacher of whole items, such as a classifier's
    logits, is compared with the mean of what the estimator makes of an item. (unilm ``beats/Tokenizers.py``; the training was never
    released, and follows the paper and ESPnet ``espnet2/beats/tokenizer.py``.)

    Args:
        encoder: builds the encoder.
        embed: builds the embedding of spectrograms from the encoder's width.
        num_codes: size of the vocabulary.
        code_dim: width of a code.
        estimator: builds the encoder that turns codes into features. Published: 3 layers. None: there is none, as in released files, and
            the tokenizer cannot be trained.
        teacher_dim: width of the features; None: that of ``teacher``. It is of no effect without an estimator.
        teacher: whose features the codes are to keep. It is needed for training alone, and not saved.

    Raises:
        ValueError: the teacher's width is another one, or is said nowhere.
    """

    version: ClassVar[int] = 2
    for_training: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(
        self,
        encoder: Callable[[], Encoder],
        embed: Callable[[int], Embed],
        num_codes: int = 1024,
        code_dim: int = 256,
        estimator: Callable[[], Encoder] | None = None,
        teacher_dim: int | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder()
        dim = self.encoder.dim
        self.embed = embed(dim)
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, code_dim))
        self.quantizer = Codebook(code_dim, num_codes)
        self.estimator = None if estimator is None else estimator()
        self.from_code = self.to_feature = None
        if self.estimator is not None:
            width = teacher_width(teacher, teacher_dim)
            self.init_args = self.init_args | {"teacher_dim": width}  # what is saved has no teacher to ask
            self.from_code = nn.Linear(code_dim, self.estimator.dim)
            self.to_feature = nn.Linear(self.estimator.dim, width)
        self.teacher = None if teacher is None else Frozen(teacher)
        self.of_items = teacher is not None and teacher.of_items

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field of ``num_codes`` ids."""
        return self.quantizer.vocab_sizes

    def check_source(self, source: Transform | Preparation) -> None:
        """Refuse statistics of another gain than that of the spectrograms; see ``check_statistics``."""
        self.embed.check_source(source)

    @torch.no_grad()
    def encode(self, values: Float[Tensor, "*f m"], lengths: Int[Tensor, " b"] | None = None) -> Int[Tensor, " n"]:
        """Return the id of each patch, in the order of the embedding's tokens.

        Args:
            values: spectrograms, ``(b, f, m)`` of one length, or ``(f, m)`` end to end with ``lengths``.
            lengths: frames of each item; None: all have the same.

        Raises:
            ValueError: an item is smaller than a patch, or there are no lengths where they are needed.
        """
        return self.quantizer.encode(self.vectors(values, lengths))

    def vectors(self, values: Float[Tensor, "*f m"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "n e"]:
        """Return the unit vector of each patch that its code is looked up with; arguments as of ``encode``."""
        return self._vectors(self.embed.tokens(values, lengths))

    def _vectors(self, tokens: Tokens) -> Float[Tensor, "n e"]:
        encoded = self.encoder(self.embed(tokens), tokens.item, tokens.coordinates)
        with torch.autocast(encoded.tokens.device.type, enabled=False):  # rounded vectors would get other ids
            return F.normalize(self.project(encoded.tokens.float()), dim=-1)

    def training_loss(self, values: Float[Tensor, "*f m"], progress: float, lengths: Int[Tensor, " b"] | None = None) -> TokenizerLoss:
        """Return the loss of a batch; ``progress`` has no effect. In training mode the codes move.

        Raises:
            ValueError: there is no teacher or no estimator, or the teacher's features are not one for each patch (each item).
        """
        if self.teacher is None:
            raise ValueError("this tokenizer has no teacher, which is not saved with it: build it with one to train it.")
        tokens = self.embed.tokens(values, lengths)
        wanted = self.teacher(values) if lengths is None else self.teacher(values, lengths)
        quantized = self.quantizer.quantize(self._vectors(tokens))
        made = self.features_of(quantized.vectors, tokens)
        made = pool_mean(made, tokens.item, len(tokens.lengths)) if self.of_items else made
        if len(made) != len(wanted):
            what = "items" if self.of_items else "patches"
            raise ValueError(f"the teacher gives {len(wanted)} features for {len(made)} {what}: its patches must be the tokenizer's.")
        return distillation_loss(made, wanted, quantized)

    def features_of(self, codes: Float[Tensor, "n e"], tokens: Tokens) -> Float[Tensor, "n t"]:
        """Return what the estimator makes of the codes of tokens; gradients pass.

        Raises:
            ValueError: the tokenizer has no estimator.
        """
        if self.estimator is None or self.from_code is None or self.to_feature is None:
            raise ValueError("this tokenizer has no estimator, which makes features of codes: build it with one to train it.")
        return self.to_feature(self.estimator(self.from_code(codes), tokens.item, tokens.coordinates).tokens)
