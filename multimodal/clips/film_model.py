"""A model of words and clips that a run has trained, to be asked: what is hidden, what belongs together, what a sequence is like.

Letters in shapes: n tokens of all sequences, m chosen ones, b sequences, v ids, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.batch import Item, Items, Sample, collate
from multimodal.clips.films import FilmTransform, WordsAndClips
from multimodal.clips.recipe import check_device
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.objectives import Alignment

TOKENS_AT_ONCE = 16384
"""Tokens that are encoded at a time; memory grows with them."""


@dataclass(frozen=True)
class Seen:
    """The encoder's output of sequences, end to end.

    Args:
        tokens: ``(n, d)``.
        ids: ``(n,)`` int64, what the encoder was given, before any was hidden.
        sequence: ``(n,)`` int64, the sequence of each token, from 0.
        hidden: ``(n,)`` bool, True at tokens that were shown as the mask.
    """

    tokens: Tensor
    ids: Tensor
    sequence: Tensor
    hidden: Tensor

    def mean(self, chosen: Bool[Tensor, " n"]) -> Float[Tensor, "b d"]:
        """Return the mean of the chosen tokens of each sequence, float32; zeros where none is chosen."""
        count = int(self.sequence[-1]) + 1
        weight = chosen.float()
        total = weight.new_zeros(count, self.tokens.shape[1]).index_add(0, self.sequence, self.tokens.float() * weight[:, None])
        return total / weight.new_zeros(count).index_add(0, self.sequence, weight).clamp(min=1)[:, None]


class FilmModel(nn.Module):
    """Encoder, embedding, head and, where the run trained one, the layer that tells aligned words and clips. It is not trained here.

    Args:
        encoder: of the run.
        name: of the modality of words and clips in the run.
        modality: its parts.
        aligned: None: the run had no ``Alignment``.

    Raises:
        ValueError: the modality does not read words and clips.
    """

    def __init__(self, encoder: Encoder, name: str, modality: Modality, aligned: Alignment | None) -> None:
        super().__init__()
        if not reads_films(modality):
            raise ValueError(f"modality {name!r} reads no words and clips, but by a {type(modality.transform).__name__}.")
        self.encoder, self.name, self.modality, self.aligned = encoder, name, modality, aligned
        self.requires_grad_(False).eval()

    @classmethod
    def from_run(cls, folder: str | Path, device: str = "cpu") -> Self:
        """Return the model of a run with the weights of its last checkpoint.

        Args:
            folder: of the run, as given to ``fit --run``.
            device: "cpu" or "cuda".

        Raises:
            ValueError: the folder holds no run, its checkpoint does not fit its config, it trained no such model, or there is no such
                device.
        """
        check_device(device)
        from multimodal.lightning_cli import load_run

        module, _ = load_run(folder)
        parts = cast(Any, getattr(module, "modalities", {}))
        found = [(name, part) for name, part in parts.items() if isinstance(part, Modality) and reads_films(part)]
        if len(found) != 1:
            raise ValueError(f"the run in {folder} pretrained {len(found)} modalities of words and clips; one is needed.")
        aligned = next((goal for goal in getattr(module, "objectives", ()) if isinstance(goal, Alignment)), None)
        return cls(cast(Any, module).encoder, *found[0], aligned).to(device)

    @property
    def transform(self) -> FilmTransform:
        """Reads films."""
        return cast(FilmTransform, self.modality.transform)

    @property
    def vocabulary(self) -> WordsAndClips:
        """The ids of words and clips."""
        return cast(WordsAndClips, self.transform.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.encoder.parameters()).device

    @torch.no_grad()
    def see(
        self, sequences: Sequence[Int[Tensor, " _"]], hidden: Sequence[Bool[Tensor, " _"]] | None = None, wanted: str = "all"
    ) -> Iterator[Seen]:
        """Encode sequences, packed, so many at a time as fit; yield the output of one such batch after the other.

        Args:
            sequences: ids of each, at least one.
            hidden: True at ids that are shown as the mask; None: where the ids are the mask.
            wanted: which tokens to yield: "all", those "hidden", or the "first" of each sequence.
        """
        masks = hidden or [ids == self.vocabulary.mask_id for ids in sequences]
        for start, stop in _batches([len(ids) for ids in sequences]):
            yield self._see(sequences[start:stop], masks[start:stop], wanted)

    def _see(self, sequences: Sequence[Tensor], hidden: Sequence[Tensor], wanted: str) -> Seen:
        items = self._items(sequences)
        tokens = self.modality.embed.tokens(items.values, items.lengths)
        masked, item = torch.cat(list(hidden)).to(self.device), tokens.item
        position = tokens.position
        kept = {"all": torch.ones_like(masked), "hidden": masked, "first": position == 0}[wanted]
        expert = torch.full_like(item, self.modality.expert) if self.encoder.num_experts > 1 else None
        embedded = self.modality.embed(tokens, masked)
        output = self.encoder(embedded, item, tokens.coordinates, expert, None if wanted == "all" else kept).tokens
        return Seen(output, items.values[kept], item[kept], masked[kept])

    def _items(self, sequences: Sequence[Tensor]) -> Items:
        samples = [Sample(str(number), {self.name: Item(ids, ragged=True)}) for number, ids in enumerate(sequences)]
        return self.modality.prepared(collate(samples).to(self.device).items[self.name], train=False)

    @torch.no_grad()
    def logits(self, tokens: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
        """Return the logits of all ids at tokens of the encoder's output, float32."""
        return cast(Tensor, self.modality.head(tokens)[0]).float()

    def word_log_probabilities(self, tokens: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
        """Return the log-probabilities of words and marks, given that each hidden token is one."""
        return F.log_softmax(self.logits(tokens)[:, : self.vocabulary.clip_offset], 1)

    def clip_log_probabilities(self, tokens: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
        """Return the log-probabilities of clips, from 0, given that each hidden token is one."""
        first = self.vocabulary.clip_offset
        return F.log_softmax(self.logits(tokens)[:, first : first + self.vocabulary.num_clips], 1)

    @torch.no_grad()
    def alignment(self, sequences: Sequence[Int[Tensor, " _"]]) -> Float[Tensor, " b"]:
        """Return, for sequences of words and clips, the logit that they belong together less that they do not, on the CPU.

        Raises:
            ValueError: the run had no ``Alignment``.
        """
        if self.aligned is None:
            raise ValueError("the run has no objective multimodal.objectives.Alignment, which tells words and clips that belong together.")
        logits = [self.aligned.logits(seen.tokens) for seen in self.see(sequences, wanted="first")]
        both = torch.cat(logits).cpu()
        return both[:, 0] - both[:, 1]


def reads_films(modality: Modality) -> bool:
    """Return whether a modality reads words and clips."""
    transform = modality.transform
    return isinstance(transform, FilmTransform) and isinstance(getattr(transform, "tokenizer", None), WordsAndClips)


def _batches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield from where to before where sequences make up a batch."""
    start = total = 0
    for number, length in enumerate(lengths):
        if total and total + length > TOKENS_AT_ONCE:
            yield start, number
            start, total = number, 0
        total += length
    if lengths:
        yield start, len(lengths)
