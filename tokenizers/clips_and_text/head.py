"""Predicts hidden words among words, and hidden clips among clips.

Letters in shapes: m predicted tokens, w words and marks, c clips, v all ids, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn import Prediction, PredictionHead, TiedHead
from multimodal.nn.mlp import Activation
from multimodal.tokenizers.clips_and_text.embed import JointEmbed
from multimodal.tokenizers.clips_and_text.vocabulary import JointVocabulary


class JointLinear(nn.Module):
    """A linear layer to words, to clips and to ``[>]``, each by itself or all at once.

    Args:
        dim: width.
        num_words: ids of words and marks.
        num_clips: ids of clips.
    """

    def __init__(self, dim: int, num_words: int, num_clips: int) -> None:
        super().__init__()
        self.words, self.clips, self.fusion = nn.Linear(dim, num_words), nn.Linear(dim, num_clips), nn.Linear(dim, 1)

    def forward(self, hidden: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
        """Return the logits of all ids."""
        return torch.cat([self.words(hidden), self.clips(hidden), self.fusion(hidden)], 1)


class JointHead(PredictionHead, TiedHead):
    """The head of BERT over words and clips: a linear layer, an activation, a norm, and a linear layer to the ids (VideoBERT, 1904.01766).

    A modality that is ``tied`` has the tables of its embedding as the weights of the last layer too (BERT), a frozen one included; biases
    are the head's own.

    Args:
        dim: width of the tokens.
        vocab_sizes: number of ids, alone (filled in by the model).
        num_words: ids of words and marks; the others but the last are clips. None: those of ``vocabulary``.
        vocabulary: the same as that of the transform, instead of ``num_words``.
        restrict: whether a hidden word is looked for among the words alone, and a clip among the clips: the softmax is that over all ids
            with all others at minus infinity. VideoBERT: no, all compete.
        norm: builds the norm from the width; None: no hidden layer.
        act: activation of the hidden layer.

    Raises:
        ValueError: both or neither of ``num_words`` and ``vocabulary``, or one of another size; several fields of ids, or
            no clips among them; or, when tied, tables of other sizes.
    """

    def __init__(
        self,
        dim: int,
        vocab_sizes: Sequence[int],
        num_words: int | None = None,
        vocabulary: JointVocabulary | None = None,
        restrict: bool = True,
        norm: Callable[[int], nn.Module] | None = None,
        act: Activation = "gelu",
    ) -> None:
        super().__init__(dim, (1,), norm=norm, act=act)
        if (num_words is None) == (vocabulary is None):
            raise ValueError(f"give either num_words or vocabulary, got {num_words} and {vocabulary}.")
        if vocabulary is not None and tuple(vocab_sizes) != vocabulary.vocab_sizes:
            raise ValueError(f"the vocabulary of the head has {vocabulary.vocab_sizes} ids, that of the modality {tuple(vocab_sizes)}.")
        num_words = vocabulary.clip_offset if vocabulary is not None else int(num_words or 0)
        self.init_args = {**self.init_args, "num_words": num_words, "vocabulary": None}  # plain, to be saved
        if len(vocab_sizes) != 1 or not 0 < num_words < vocab_sizes[0] - 1:
            raise ValueError(f"there must be words, clips and one id more; got num_words {num_words} of vocab_sizes {tuple(vocab_sizes)}.")
        self.vocab_sizes, self.num_words, self.restrict = tuple(vocab_sizes), num_words, restrict
        proj = JointLinear(dim, num_words, vocab_sizes[0] - 1 - num_words)
        self.proj = proj  # type: ignore[assignment]
        for layer in (proj.words, proj.clips, proj.fusion):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def tie(self, embed: nn.Module) -> None:
        """Take the tables of a ``JointEmbed`` as weights of the last layer; see ``TiedHead.tie``."""
        if not isinstance(embed, JointEmbed) or embed.vocab_sizes != self.vocab_sizes or embed.num_words != self.num_words:
            raise ValueError(f"tied: the tables must be those of a JointEmbed of as many words and clips, not of a {type(embed).__name__}.")
        for name in ("words", "clips", "fusion"):
            getattr(self.proj, name).weight = getattr(embed, name).weight

    def predict(self, hidden: Float[Tensor, "m d"], ids: Int[Tensor, " m"]) -> Prediction:
        """Compare the predictions with the true ids."""
        if not self.restrict:
            return super().predict(hidden, ids)
        x = self.hidden(hidden)
        clip = ids >= self.num_words
        loss, guesses = x.new_zeros(len(x), dtype=torch.float32), torch.zeros_like(ids)
        for layer, offset, there in ((self.proj.words, 0, ~clip), (self.proj.clips, self.num_words, clip)):
            rows = there.nonzero()[:, 0]
            logits = layer(x[rows])
            loss = loss.index_copy(0, rows, F.cross_entropy(logits.float(), ids[rows] - offset, reduction="none"))
            guesses = guesses.index_copy(0, rows, logits.argmax(1) + offset)
        return Prediction(loss, guesses, (guesses == ids)[:, None])
