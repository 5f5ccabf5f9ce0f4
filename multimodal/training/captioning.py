"""Captioning: a text about what an encoder sees, written by a decoder.

Letters in shapes: b samples with something to see, m tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch
from multimodal.heads.caption_search import write_texts
from multimodal.heads.captioner import CaptionDecoder
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.protocols import Transform
from multimodal.training.caption_scores import CaptionScores
from multimodal.training.encoder_training import default_optimizer
from multimodal.training.optimization import WarmupCosine
from multimodal.training.writing import WritingTraining, ids_of

CAPTION = "caption"
"""The name of the captions in a batch; ``predict`` writes ``captions``."""
NONE = -100
"""In the place of an id that is not there."""


class Memory(NamedTuple):
    """What the decoder reads of a batch.

    Args:
        tokens: ``(b, m, width)``.
        valid: ``(b, m)`` bool, False where a sample has no more tokens.
        sample: ``(b,)`` int64, the samples with something to see, ascending.
    """

    tokens: Tensor
    valid: Tensor
    sample: Tensor


class Captioning(WritingTraining):
    """Train a decoder, and the encoder or not, to write a caption about an item.

    Each id is predicted from the true ones before it. The loss of an optimizer step is the mean over all ids of its captions, the one that
    ends each included, over ranks and accumulated batches alike. A sample without a caption, or without an item, counts for nothing.

    Logs loss, and in validation and test BLEU-4, ROUGE-L and CIDEr of captions found by beam search (``val/bleu_4``, ``val/rouge_l``,
    ``val/cider``; see ``multimodal.training.caption_scores``); losses are without smoothing there. ``predict`` writes a line of JSON for
    each sample to ``RUN/predictions/captions.jsonl``.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, about which is written.
        caption: reads the captions; it has a tokenizer of its own, which also decodes. Its marks of start and end are left out.
        decoder: builds the decoder from the encoder's width and the number of ids, or is one; None: ``CaptionDecoder``.
        label_smoothing: share of the truth that is spread over all ids in training, in [0, 1).
        beam_size: beginnings that are kept in the search; 1: greedy.
        length_penalty: see ``multimodal.heads.caption_search.write_texts``, in [0, 2].
        freeze_layers: the embedding and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, a caption that is longer than the decoder
            can write, or none in an epoch.
    """

    kind = CAPTION

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        caption: Transform,
        decoder: Callable[[int, int], CaptionDecoder] | CaptionDecoder | None = None,
        label_smoothing: float = 0.1,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, caption, optimizer, schedule, layer_decay, compile_encoder)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        if beam_size < 1 or not 0 <= length_penalty <= 2:
            raise ValueError(f"beam_size must be at least 1 and length_penalty in [0, 2], got {beam_size} and {length_penalty}.")
        self.label_smoothing, self.beam_size, self.length_penalty = label_smoothing, beam_size, length_penalty
        num_ids = self.tokenizer.vocab_sizes[0]
        self.decoder = decoder if isinstance(decoder, CaptionDecoder) else (decoder or CaptionDecoder)(encoder.dim, num_ids)
        if self.decoder.num_ids != num_ids:
            raise ValueError(f"the decoder's num_ids is {self.decoder.num_ids}, the tokenizer of the captions has {num_ids} ids.")
        self._complete(freeze_layers, CaptionScores)

    def forward(self, batch: Batch) -> Memory:
        """Return what the decoder reads: all tokens of the encoder's output, sample by sample; the batch has an item to see."""
        part = self.modality.plain_tokens(batch.items[self.name])
        encoded = self.encode({self.name: part})
        sequence = part[1]
        lengths = torch.bincount(sequence, minlength=batch.num_samples)
        there = lengths.nonzero()[:, 0]
        order = sequence.argsort(stable=True)
        rows = encoded.tokens[order].split(lengths[there].tolist())
        filled = pad_sequence(list(rows), batch_first=True)
        valid = torch.arange(filled.shape[1], device=filled.device) < lengths[there, None]
        return Memory(self.decoder.read(filled), valid, there)

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        if self.name not in batch.items:
            return {}
        memory = self.forward(batch)
        captions = self._captions_of(batch)
        rows = [place for place, number in enumerate(memory.sample.tolist()) if number in captions]
        ids = [captions[int(memory.sample[place])] for place in rows]
        chosen = Memory(memory.tokens[rows], memory.valid[rows], memory.sample[rows])
        loss, plain, count = self._loss(chosen, ids, batch.keys)
        scores = cast(CaptionScores, self._metric(stage))
        if stage == "train":
            self._learned += len(ids)
            scores.update(plain, count)
        else:
            scores.update(plain, count, self._texts(chosen), [self.tokenizer.decode(own) for own in ids])
        nothing = torch.zeros(0, dtype=torch.int64, device=count.device)
        return {(CAPTION, 0): Term(loss if stage == "train" else plain, count=count, weight=1.0, correct=nothing, ids=nothing)}

    def _captions_of(self, batch: Batch) -> dict[int, Tensor]:
        """Return sample -> the ids of its caption, without marks."""
        items = batch.items.get(CAPTION)
        if items is None:
            return {}
        marked = [(own, self.tokenizer.marks(own)) for own in ids_of(items)]
        return {int(number): own if marks is None else own[~marks] for number, (own, marks) in zip(items.sample, marked, strict=True)}

    def _loss(self, memory: Memory, captions: list[Tensor], keys: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of the smoothed and of the plain losses, and the number of ids, ends included."""
        if not captions:
            zero = memory.tokens.sum() * 0.0
            return zero, zero, torch.zeros((), dtype=torch.int64, device=self.device)
        longest, place = max((len(own), place) for place, own in enumerate(captions))
        if longest > self.decoder.max_ids:
            raise ValueError(
                f"the caption of sample {keys[int(memory.sample[place])]!r} has {longest} ids, max_ids of the decoder is "
                f"{self.decoder.max_ids}: raise it, or set max_tokens of the caption's transform to it."
            )
        begin, end = (captions[0].new_tensor([number]) for number in (self.decoder.begin_id, self.decoder.end_id))
        given = pad_sequence([torch.cat([begin, own]) for own in captions], batch_first=True)
        truth = pad_sequence([torch.cat([own, end]) for own in captions], batch_first=True, padding_value=NONE)
        logits, truth = self.decoder(given, memory.tokens, memory.valid).flatten(0, 1), truth.flatten()
        plain = F.cross_entropy(logits, truth, ignore_index=NONE, reduction="sum")
        smooth = F.cross_entropy(logits, truth, ignore_index=NONE, reduction="sum", label_smoothing=self.label_smoothing)
        return smooth, plain, (truth != NONE).sum()

    def _texts(self, memory: Memory) -> list[str]:
        found = write_texts(self.decoder, memory.tokens, memory.valid, self.beam_size, self.length_penalty)
        return [self.tokenizer.decode(written.ids) for written in found]

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities, self.decoder]  # of the embedding in use, the vector of the mask; no caption: the decoder

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], list[str]]]:
        """Return the keys and the captions of the samples with something to see."""
        if self.name not in batch.items:
            self._encode_nothing()
            return {}
        memory = self.forward(batch)
        return {f"{CAPTION}s": ([batch.keys[number] for number in memory.sample.tolist()], self._texts(memory))}

    def _shown(self, score: str) -> bool:
        return score in ("loss", "cider")
