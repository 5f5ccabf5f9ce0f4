"""How words and clips of one sequence enter the encoder.

Letters in shapes: n tokens of all items end to end, w words and marks, c clips, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.batch import Item
from multimodal.nn import initialize_linear
from multimodal.protocols import Embed, Preparation, Tokens, Transform

Replacement = Literal["same kind", "any"]
CLIP = 1
"""The type of clips, and of the mark after them."""


class JointEmbed(Embed):
    """Tables of words and of clips, with types and positions added and a norm after them (BERT; VideoBERT, arXiv 1904.01766).

    Ids are those of a ``JointVocabulary``: words and marks, clips, ``[>]``. Clips and a mark right after them are of type 1, all else is of
    type 0; ``[>]`` counts with the words. The mask is one id for both kinds. Built in a config by ``new_joint_embed`` or
    ``load_joint_embed``, which take the numbers from the vocabulary.

    Args:
        dim: width of the encoder.
        num_words: ids of words and marks, which come first.
        num_clips: ids of clips, which come next; ``[>]`` is the one after.
        mask_id: the id that is shown at hidden tokens.
        end_ids: the ids that mark the end of a sequence.
        position: builds positions to be added from the width; called with ``(n, 1)`` indices; None: positions enter in the encoder.
        num_types: rows of the table of types: 2, as in BERT, or 0 without types.
        norm: builds a norm of the sum from the width; None: no norm.
        freeze_clips: whether the table of clips keeps its values, as in VideoBERT.
        dropout: share of the numbers after the norm that are dropped in training, in [0, 1). BERT: 0.1.
        replacement: what a random token in the place of a hidden one is drawn from: ids of the "same kind", or "any" but ``[>]`` (BERT).

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(
        self,
        dim: int,
        num_words: int,
        num_clips: int,
        mask_id: int,
        end_ids: Sequence[int],
        position: Callable[[int], nn.Module] | None = None,
        num_types: int = 2,
        norm: Callable[[int], nn.Module] | None = None,
        freeze_clips: bool = False,
        dropout: float = 0.0,
        replacement: Replacement = "same kind",
    ) -> None:
        super().__init__()
        if num_words < 1 or num_clips < 1 or not 0 <= mask_id < num_words:
            raise ValueError(
                f"num_words and num_clips must be at least 1, and mask_id one of the words; got {num_words}, {num_clips} and {mask_id}."
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}.")
        if num_types not in (0, 2) or replacement not in get_args(Replacement):
            raise ValueError(f"num_types must be 0 or 2 and replacement 'same kind' or 'any', got {num_types} and {replacement!r}.")
        self.num_words, self.num_clips, self.fusion_id = num_words, num_clips, num_words + num_clips
        self.vocab_sizes, self.mask_id, self.end_ids = (num_words + num_clips + 1,), mask_id, tuple(end_ids)
        self.replacement = replacement
        self.words, self.clips, self.fusion = (nn.Embedding(count, dim) for count in (num_words, num_clips, 1))
        self.types = nn.Embedding(num_types, dim) if num_types else None
        self.apply(initialize_linear)
        self.clips.weight.requires_grad_(not freeze_clips)
        self.position = position(dim) if position else None
        self.norm = norm(dim) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def tokens(self, values: Int[Tensor, "*shape"], lengths: Int[Tensor, " items"] | None = None) -> Tokens:
        """Return one token per id: its inputs are the id and the type, its coordinate is its index in the item.

        Args:
            values: ``(n,)`` ids of all items end to end; without lengths ``(items, l)``, of items of one length.
            lengths: of the items.
        """
        tokens = Tokens.of_sequences(values, lengths)
        return tokens.with_inputs(torch.stack([tokens.inputs, self._types(tokens.inputs)], 1))

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Embed tokens; where ``shown_as_mask``, the id is ``mask_id``."""
        ids, types = tokens.inputs.unbind(1)
        x = self.rows(ids if shown_as_mask is None else ids.masked_fill(shown_as_mask, self.mask_id))
        if self.types is not None:
            x = x + self.types(types)
        if self.position is not None:
            x = x + self.position(tokens.coordinates)
        return self.drop(self.norm(x))

    def rows(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Return the rows of ids."""
        word = ids < self.num_words
        clip = (ids - self.num_words).clamp(0, self.num_clips - 1)
        rows = torch.where(word[:, None], self.words(ids.clamp(max=self.num_words - 1)), self.clips(clip))
        return torch.where((ids == self.fusion_id)[:, None], self.fusion.weight, rows)

    def _types(self, ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        clip = (ids >= self.num_words) & (ids < self.fusion_id)
        after = torch.zeros_like(clip)
        after[1:] = clip[:-1]
        end = torch.isin(ids, ids.new_tensor(self.end_ids)) & after  # all items begin with a mark, so none is after a clip of another
        return (clip | end).long() * CLIP

    def example(self) -> Item:
        """Return a sequence of one word."""
        return Item(torch.zeros(1, dtype=torch.int64), ragged=True)

    def check_source(self, source: Transform | Preparation) -> None:
        """Look whether the numbers are those of the vocabulary of a transform.

        Raises:
            ValueError: they are not.
        """
        vocabulary = getattr(source, "tokenizer", None)
        if vocabulary is None:
            return
        own = (self.num_words, self.num_clips, self.mask_id, self.end_ids)
        said = tuple(getattr(vocabulary, name, None) for name in ("clip_offset", "num_clips", "mask_id", "end_ids"))
        if own != said:
            raise ValueError(f"num_words, num_clips, mask_id and end_ids of the embedding are {own}, those of the vocabulary {said}.")

    def random_inputs(self, tokens: Tokens, noise: Float[Tensor, " n"]) -> Int[Tensor, "n 2"]:
        """Return random ids, uniform over the kind of each token or over all words and clips, with the types as they are."""
        ids, types = tokens.inputs.unbind(1)
        low, count = torch.zeros_like(ids), torch.full_like(ids, self.num_words + self.num_clips)
        if self.replacement == "same kind":
            clip = ids >= self.num_words
            low = torch.where(clip, self.num_words, low)
            count = torch.where(clip, self.num_clips, self.num_words)
        return torch.stack([low + (noise.double() * count).long(), types], 1)
