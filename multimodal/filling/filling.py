"""Hide tokens of a modality and fill them in.

Letters in shapes: n tokens of all items end to end, k fields, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal.batch import Items
from multimodal.filling.allowed import AllowedIds
from multimodal.filling.iterative import IterativeDecoding
from multimodal.filling.windows import SlidingWindows
from multimodal.masking import MaskReplaceKeep
from multimodal.modality import Modality
from multimodal.nn import PredictionHead
from multimodal.protocols import Masking, Tokens

Part = tuple[Tensor, Tensor, Tensor]
"""Embedded tokens ``(n, d)``, the sequence of each ``(n,)``, the coordinates of each ``(n, axes)``."""
Encode = Callable[[Part, Tensor], Tensor]
"""From the tokens of the modality, and which of them are asked for ``(n,)`` bool, to the encoder's output for these, ``(m, d)``."""


class Filled(NamedTuple):
    """Items as they are, and as they were filled in.

    Args:
        truth: ``(n,)`` or ``(n, k)`` int64, the ids of all items end to end.
        ids: the same with what was hidden filled in.
        hidden: of the same shape, bool, True at ids that were hidden.
        lengths: ``(items,)`` int64, tokens of each item.
    """

    truth: Tensor
    ids: Tensor
    hidden: Tensor
    lengths: Tensor


class Filling:
    """What ``multimodal predict`` does instead of writing features: hide tokens of a modality, and fill them in.

    As many tokens are filled in as were hidden. The other modalities of a sample are seen as they are.

    Args:
        masking: what to hide; None: what the modality hides in evaluation. A masking that hides single fields leaves the others to see.
        decoding: how it is filled in; None: 8 rounds, see ``IterativeDecoding``.
        modality: name of the modality; None: the model's only one.
        window: of items that are longer so many tokens are seen at once, in windows that overlap by half; None: whole items. Then the
            transform may read whole files (``max_notes`` of music).
        allowed: name of a field -> lowest and highest id that is filled in, both included; see ``AllowedIds``.
        pictures: whether a picture of each item is written too, by the modality's renderer.
        overwrite: whether files of an earlier prediction are replaced; else they are an error.

    Raises:
        ValueError: ``window`` is below 2, or a range is not ascending.
    """

    def __init__(
        self,
        masking: Masking | None = None,
        decoding: IterativeDecoding | None = None,
        modality: str | None = None,
        window: int | None = None,
        allowed: dict[str, tuple[int, int]] | None = None,
        pictures: bool = False,
        overwrite: bool = False,
    ) -> None:
        if window is not None and window < 2:
            raise ValueError(f"window must be at least 2 tokens, got {window}; null for whole items.")
        for name, (low, high) in (allowed or {}).items():
            if not 0 <= low <= high:
                raise ValueError(f"allowed ids of {name!r} must be lowest and highest, from 0 up, got {low} and {high}.")
        self.masking, self.decoding, self.modality, self.window = masking, decoding or IterativeDecoding(), modality, window
        self.allowed, self.pictures, self.overwrite = dict(allowed or {}), pictures, overwrite

    def name_of(self, modalities: Mapping[str, Modality]) -> str:
        """Return the name of the modality that is filled in.

        Raises:
            ValueError: it is not there, not named among several, or cannot be filled in.
        """
        named = self.modality or (next(iter(modalities)) if len(modalities) == 1 else None)
        if named is None or named not in modalities:
            said = "names none of several modalities" if named is None else f"names the modality {named!r}, which is not there"
            raise ValueError(f"filling {said}: set its modality to one of {', '.join(modalities)}.")
        self.check(named, modalities[named])
        return named

    def check(self, name: str, modality: Modality) -> None:
        """Look whether a modality can be filled in.

        Raises:
            ValueError: it cannot, and why.
        """
        several = self.decoding.rounds > 1 or self.window is not None
        wrong = {
            f"it predicts vectors ({type(modality.predicted).__name__}), no ids": modality.tokenizer is None,
            f"its head, a {type(modality.head).__name__}, gives no logits of ids": not isinstance(modality.head, PredictionHead),
            f"it hides by {type(modality.corruption).__name__}, so that its encoder never learned what the mask is": not isinstance(
                modality.corruption, MaskReplaceKeep
            ),
            "a decoder predicts, from visible tokens alone": modality.decoder is not None,
            f"{type(self.masking).__name__} mixes items": self._masking(modality).num_mixed > 1,
            "the encoder reads values and no ids, so that it cannot see what was filled in: set decoding.steps to 1, refine_steps to 0 and "
            "window to null": not modality.values_are_ids and several,
            "it has no renderer: set one, or pictures to false": self.pictures and modality.renderer is None,
        }
        if reasons := [reason for reason, found in wrong.items() if found]:
            raise ValueError(f"modality {name!r} cannot be filled in: {reasons[0]}.")
        assert modality.tokenizer is not None
        AllowedIds(modality.tokenizer, self.allowed)

    def _masking(self, modality: Modality) -> Masking:
        return self.masking or modality.eval_masking or modality.masking

    @torch.no_grad()
    def fill(self, modality: Modality, items: Items, encode: Encode) -> Filled:
        """Return items as they are and filled in, as a function of each item's own tokens and seed.

        Args:
            modality: of the items, in evaluation mode; ``check`` found nothing wrong with it.
            items: some.
            encode: the encoder, with the other modalities of the samples; without a window the sequence of a token is the number of its
                sample, else that of its window.

        Raises:
            ValueError: the ids are not those of the tokens, or the masking finds no such groups or fields.
        """
        assert modality.tokenizer is not None
        tokens = self._tokens(modality, items)
        truth = modality.targets(items, tokens)
        masked = self._masking(modality)(modality.tokenizer.annotated(tokens, truth), items.seed)
        fields = truth if truth.ndim == 2 else truth[:, None]
        asked = (masked if masked.ndim == 2 else masked[:, None]).expand_as(fields)
        windows = SlidingWindows.of(tokens.lengths, self.window)

        def predict(ids: Tensor, hidden: Tensor) -> Sequence[Tensor]:
            if not modality.values_are_ids:  # all at once
                part, own, wanted, as_mask = tokens, windows, hidden.any(1), hidden.any(1)
            else:
                own = windows.telling(hidden.any(1))  # items without hidden tokens are done
                part = modality.embed.tokens(ids.view_as(truth)[own.source], own.lengths)
                wanted, as_mask = own.own, _as_embeddings_take_it(hidden[own.source])
            sequence = items.sample[own.item] if self.window is None else torch.arange(len(own.lengths), device=ids.device)
            output = encode((modality.embed(part, as_mask), sequence[part.item], part.coordinates), wanted)
            return modality.head(output)

        allowed = AllowedIds(modality.tokenizer, self.allowed)
        found = self.decoding(predict, fields, asked, tokens.lengths, items.seed, allowed)
        return Filled(truth, found.view_as(truth), asked.reshape(truth.shape), tokens.lengths)

    def _tokens(self, modality: Modality, items: Items) -> Tokens:
        """Return the tokens of whole items, which an embedding may find too long."""
        if self.window is None or items.lengths is None:
            return modality.embed.tokens(items.values, items.lengths)
        return Tokens.of_sequences(items.values, items.lengths)


def _as_embeddings_take_it(hidden: Tensor) -> Tensor:
    """Return ``(n,)`` where tokens are hidden as a whole, which every embedding takes, else ``(n, k)``."""
    whole = hidden.all(1)
    return whole if torch.equal(whole, hidden.any(1)) else hidden
