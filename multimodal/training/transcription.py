"""Transcription: sequences of ids, such as the characters that are spoken, without saying when (connectionist temporal classification).

Letters in shapes: n tokens, t steps, i ids and the blank, b transcripts.
"""

from __future__ import annotations

import warnings
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
from multimodal.heads.ctc import CtcHead, time_steps
from multimodal.heads.ctc_decoding import beam_search, greedy, padded_steps
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.protocols import Transform
from multimodal.training.encoder_training import default_optimizer
from multimodal.training.optimization import WarmupCosine
from multimodal.training.transcription_scores import TranscriptionScores
from multimodal.training.writing import WritingTraining, ids_of

TRANSCRIPT = "transcript"
"""The name of the transcripts in a batch, and of what ``predict`` writes."""


class Heard(NamedTuple):
    """What the head says of a batch.

    Args:
        log_probabilities: ``(samples, t, i)`` float32, filled up with zeros.
        lengths: ``(samples,)`` int64, the steps of each sample; 0 where there is nothing to hear.
    """

    log_probabilities: Tensor
    lengths: Tensor


class Written(NamedTuple):
    """The transcripts of the samples that have both a transcript and an item to transcribe.

    Args:
        ids: of each.
        lengths: ``(b,)`` int64, the number of ids of each.
        sample: ``(b,)`` int64, the sample of each.
        fits: ``(b,)`` bool, False at those that no alignment with the steps has room for.
    """

    ids: list[Tensor]
    lengths: Tensor
    sample: Tensor
    fits: Tensor


class Transcription(WritingTraining):
    """Train an encoder, or only a head on it, to transcribe: CTC (https://www.cs.toronto.edu/~graves/icml_2006.pdf).

    Tokens at one place in time are averaged into one step. The loss of an optimizer step is the mean over all ids of its transcripts, over
    ranks and accumulated batches alike. A sample without a transcript, or without an item, counts for nothing. A transcript with more ids
    (and blanks, which must stand between equal ones) than there are steps is left out of the loss and counted (``val/left_out``); the first
    is warned of. Error rates count it.

    Logs loss, and in validation and test the error rates of characters and words between the texts that the transcript's tokenizer makes of
    the ids (``val/character_error_rate``, ``val/word_error_rate``). ``predict`` writes a line of JSON for each sample to
    ``RUN/predictions/transcript.jsonl``.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, which is transcribed. Its items
            must be whole: a crop has not all that the transcript says.
        transcript: reads the transcripts; it has a tokenizer of its own, which also decodes. Its items must be whole too: see that
            ``max_tokens`` is not below the longest.
        head: builds the head from the encoder's width and the number of ids, or is one; None: ``CtcHead``.
        beam_size: prefixes that are kept while transcripts of validation, test and prediction are searched; 1: the likeliest alignment
            (greedy).
        length_bonus: added to the log-probability of a prefix for each of its ids; needs ``beam_size`` above 1.
        time_axis: which of the tokens' coordinates is time. 1 where the tokens of a band stand together (AST).
        freeze_layers: the embedding and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
            0: nothing does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, no transcript in an epoch.
    """

    kind = TRANSCRIPT

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        transcript: Transform,
        head: Callable[[int, int], CtcHead] | CtcHead | None = None,
        beam_size: int = 1,
        length_bonus: float = 0.0,
        time_axis: int = 0,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, transcript, optimizer, schedule, layer_decay, compile_encoder)
        if beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, got {beam_size}.")
        if length_bonus and beam_size == 1:
            raise ValueError("length_bonus has no effect with beam_size 1: set one above it, or leave it out.")
        if time_axis < 0:
            raise ValueError(f"time_axis must be at least 0, got {time_axis}.")
        self.beam_size, self.length_bonus, self.time_axis = beam_size, length_bonus, time_axis
        num_ids = self.tokenizer.vocab_sizes[0]
        self.head = head if isinstance(head, CtcHead) else (head or CtcHead)(encoder.dim, num_ids)
        if self.head.num_ids != num_ids:
            raise ValueError(f"the head's num_ids is {self.head.num_ids}, the tokenizer of the transcripts has {num_ids} ids.")
        self._warned = False  # whether a transcript that is too long was named
        self._complete(freeze_layers, TranscriptionScores)

    def forward(self, batch: Batch) -> Heard:
        """Return the log-probabilities of the ids and the blank, which is the last, at each step of each sample."""
        heard = self._without_texts(batch)
        if not heard.items:
            nothing = torch.zeros(batch.num_samples, 0, self.head.num_ids + 1, device=self.device)
            return Heard(nothing, torch.zeros(batch.num_samples, dtype=torch.int64, device=self.device))
        tokens, sample, coordinates = self.modality.plain_tokens(heard.items[self.name])
        if self.time_axis >= coordinates.shape[1]:
            raise ValueError(f"time_axis is {self.time_axis}, but the tokens' coordinates have {coordinates.shape[1]} axes.")
        encoded = self.encode({self.name: (tokens, sample, coordinates)})
        steps, sequence = time_steps(encoded.tokens, sample, coordinates[:, self.time_axis])
        filled, lengths = padded_steps(self.head(steps).float(), sequence, batch.num_samples)
        return Heard(filled.log_softmax(-1), lengths)

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        if self.name not in batch.items:
            return {}
        heard = self.forward(batch)
        written = self._written(batch, heard.lengths)
        loss, count = self._loss(heard, written)
        scores = cast(TranscriptionScores, self._metric(stage))
        scores.update(loss, count, len(written.ids), int((~written.fits).sum()))
        if stage == "train":
            self._learned += len(written.ids)
        else:
            guesses = self._texts(Heard(heard.log_probabilities[written.sample], heard.lengths[written.sample]))
            scores.update_texts(guesses, [self.tokenizer.decode(ids) for ids in written.ids])
        nothing = torch.zeros(0, dtype=torch.int64, device=count.device)
        return {(TRANSCRIPT, 0): Term(loss, count=count, weight=1.0, correct=nothing, ids=nothing)}

    def _written(self, batch: Batch, steps: Tensor) -> Written:
        """Return the transcripts of samples with steps, and warn of the first that is too long."""
        items = batch.items.get(TRANSCRIPT)
        ids, sample = ([], torch.zeros(0, dtype=torch.int64)) if items is None else (ids_of(items), items.sample)
        pairs = [(own, number) for own, number in zip(ids, sample.tolist(), strict=True) if steps[number] > 0]
        ids, numbers = [own for own, _ in pairs], [number for _, number in pairs]
        lengths = torch.tensor([len(own) for own in ids], dtype=torch.int64, device=steps.device)
        repeats = torch.tensor([int((own[1:] == own[:-1]).sum()) for own in ids], dtype=torch.int64, device=steps.device)
        sample = torch.tensor(numbers, dtype=torch.int64, device=steps.device)
        fits = lengths + repeats <= steps[sample]
        if not self._warned and not bool(fits.all()):
            first = int((~fits).nonzero()[0, 0])
            self._warn(batch.keys[numbers[first]], int(lengths[first]), int(lengths[first] + repeats[first]), int(steps[sample[first]]))
        return Written(ids, lengths, sample, fits)

    def _warn(self, key: str, ids: int, needed: int, steps: int) -> None:
        self._warned = True
        warnings.warn(
            f"the transcript of sample {key!r} has {ids} ids, and needs {needed} steps with the blanks between equal ones, but there are "
            f"{steps}: it is left out of the loss. Further ones are only counted, as left_out.",
            stacklevel=2,
        )

    def _loss(self, heard: Heard, written: Written) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the transcripts that fit, and the number of their ids; an empty one counts as one."""
        ids = [own for own, fits in zip(written.ids, written.fits.tolist(), strict=True) if fits]
        lengths, sample = written.lengths[written.fits], written.sample[written.fits]
        if not ids:
            return heard.log_probabilities[:0].sum(), torch.zeros((), dtype=torch.int64, device=lengths.device)
        steps = heard.log_probabilities[sample].transpose(0, 1)  # t b i
        targets = pad_sequence(ids, batch_first=True)
        loss = F.ctc_loss(steps, targets, heard.lengths[sample], lengths, blank=self.head.blank, reduction="sum")
        return loss, lengths.clamp(min=1).sum()

    def _texts(self, heard: Heard) -> list[str]:
        """Return the transcript of each sample."""
        if self.beam_size == 1:
            return [self.tokenizer.decode(ids) for ids in greedy(*heard)]
        found = beam_search(*heard, self.beam_size, self.length_bonus)
        return [self.tokenizer.decode(hypotheses[0].ids) for hypotheses in found]

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities] if batch.items else [self.modalities, self.head]  # of the embedding in use, the vector of the mask

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], list[str]]]:
        """Return the keys and the transcripts of the samples with something to transcribe."""
        if self.name not in batch.items:
            self._encode_nothing()
            return {}
        heard = self.forward(batch)
        there = heard.lengths.nonzero()[:, 0]
        texts = self._texts(Heard(heard.log_probabilities[there], heard.lengths[there]))
        return {TRANSCRIPT: ([batch.keys[number] for number in there.tolist()], texts)}

    def _shown(self, score: str) -> bool:
        return score in ("loss", "character_error_rate")
