"""Questions that a part of a text answers, from an encoder that was trained before.

Letters in shapes: n tokens of all items, w windows, l tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.heads.answer_spans import best_spans
from multimodal.heads.token import TokenClassifier
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.training.answer_scores import AnswerScores
from multimodal.training.dry_run import check_input
from multimodal.training.encoder_training import default_optimizer
from multimodal.training.one_modality import OneModalityTraining
from multimodal.training.optimization import WarmupCosine
from multimodal.windowed import AnswerColumn, unpack, windows_of

ANSWER = "answer"
"""The name of what ``predict`` writes."""
Candidate = dict[str, Any]
"""A possible answer: its span of the text, the characters ``start`` and ``end`` (after the last), and its score."""


class Read(NamedTuple):
    """What the head says of the windows of all items, filled up.

    Args:
        starts: ``(w, l)`` float32, logit of each token to be the first of the answer; minus infinity where it cannot be.
        ends: ``(w, l)`` float32, logit of each token to be the last.
        item: ``(w,)`` int64, the item of each window.
        labels: ``(w, l, 5)`` int64, 0 where filled up; see ``AnswerColumn``.
    """

    starts: Tensor
    ends: Tensor
    item: Tensor
    labels: Tensor


class QuestionAnswering(OneModalityTraining):
    """Train an encoder, or only a head on it, to find the part of a text that answers a question (BERT on SQuAD).

    Each window is a sequence of its own, with the question before a part of the text. The head gives each token two logits, of being the
    first of the answer and the last; the first token of a window, with both, says "not here". The loss of an optimizer step is the mean of
    both cross-entropies over all its windows, over ranks and accumulated batches alike. Departure from BERT: tokens of the question cannot
    be chosen, in training neither.

    The answer is the span of the highest score over all windows of a text. With ``unanswerable`` there is none where the score of "not
    here", the lowest of all windows, is above that of the best span by more than ``null_threshold``.

    Logs loss, and in validation and test exact match and F1 as SQuAD's script does (``val/exact_match``, ``val/f1``). ``predict`` writes a
    line of JSON for each sample to ``RUN/predictions/answer.jsonl``: the answer, where in the text it stands, and the ``n_best``.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, whose transform makes windows
            of questions and texts.
        head: builds the head from the encoder's width, or is one, of two classes: first and last. None: ``TokenClassifier``.
        unanswerable: whether a text may have no answer (SQuAD 2.0).
        null_threshold: how much more than the best span "not here" must score; needs ``unanswerable``.
        max_answer_tokens: longer spans are no answers.
        n_best: so many candidates are written of each question.
        freeze_layers: the embeddings and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
            0: nothing does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, no answered question in an epoch.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        head: Callable[[int], TokenClassifier] | TokenClassifier | None = None,
        unanswerable: bool = False,
        null_threshold: float = 0.0,
        max_answer_tokens: int = 30,
        n_best: int = 5,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        if min(max_answer_tokens, n_best) < 1:
            raise ValueError(f"max_answer_tokens and n_best must be at least 1, got {max_answer_tokens} and {n_best}.")
        if null_threshold and not unanswerable:
            raise ValueError("null_threshold has no effect where every question has an answer: set unanswerable, or leave it out.")
        self.unanswerable, self.null_threshold = unanswerable, null_threshold
        self.max_answer_tokens, self.n_best = max_answer_tokens, n_best
        self._check_parts()
        self.head = head if isinstance(head, TokenClassifier) else (head or partial(TokenClassifier, num_classes=2))(encoder.dim)
        if self.head.num_classes != 2:
            raise ValueError(f"the head's num_classes must be 2, the first token of an answer and the last, got {self.head.num_classes}.")
        self._answered = 0  # windows of this epoch of which it is known where the answer is
        self._complete(freeze_layers, AnswerScores)

    def _check_parts(self) -> None:
        """Look at the transform's example, and try the embedding on it."""
        example = self.modality.transform.example()
        if example is None or example.labels is None or example.labels.ndim != 2 or example.labels.shape[1] != len(AnswerColumn):
            raise ValueError(
                f"the transform of modality {self.name!r}, a {type(self.modality.transform).__name__}, makes no windows of questions and "
                "texts: use one that does, such as multimodal.tokenizers.text.QuestionTransform."
            )
        check_input(self.name, self.modality, self.encoder.dim)

    def forward(self, items: Items) -> Read:
        """Return what the head says of the windows of items."""
        windows = windows_of(items)
        tokens = self.modality.embed.tokens(items.values, windows.lengths)
        encoded = self.encode({self.name: (self.modality.embed(tokens), tokens.item, tokens.coordinates)})
        lengths = windows.lengths.tolist()
        logits, labels = self.head(encoded.tokens).float(), cast(Tensor, items.labels)
        allowed = (labels[:, AnswerColumn.FROM] >= 0) | (tokens.position == 0)
        starts, ends = (
            pad_sequence(list(x.masked_fill(~allowed, -torch.inf).split(lengths)), batch_first=True, padding_value=-torch.inf)
            for x in logits.unbind(1)
        )
        return Read(starts, ends, windows.item, pad_sequence(list(labels.split(lengths)), batch_first=True))

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        return {(name, 0): self._term(items, stage) for name, items in batch.items.items()}

    def _term(self, items: Items, stage: str) -> Term:
        read = self.forward(items)
        flags = read.labels[..., AnswerColumn.STARTS :]
        known = flags[..., 0].any(1)
        first, last = flags[known].argmax(1).unbind(1)
        loss = (F.cross_entropy(read.starts[known], first, reduction="sum") + F.cross_entropy(read.ends[known], last, reduction="sum")) / 2
        windows = int(known.sum())
        scores = cast(AnswerScores, self._metric(stage))
        scores.update(loss, windows)
        if stage == "train":
            self._answered += windows
        else:
            answered = set(read.item[known].tolist())
            for number, (texts, told) in enumerate(self._told(items, read)):
                if number in answered:
                    scores.update_answer(told["span"], texts[1:])
        nothing = torch.zeros(0, dtype=torch.int64, device=loss.device)
        return Term(loss, count=torch.tensor(windows, device=loss.device), weight=1.0, correct=nothing, ids=nothing)

    def _told(self, items: Items, read: Read) -> Iterator[tuple[list[str], Candidate]]:
        """Yield of each item its texts, the context first, and what is told."""
        for number, texts in enumerate(unpack(items.tokenizer_values)):
            own = Read(*(part[read.item == number] for part in read))
            yield texts, self._answer(texts[0], own)

    def _answer(self, context: str, read: Read) -> Candidate:
        """Return the answer of one item, with the best candidates; its text is empty where there is none."""
        found = self._candidates(context, read)
        nothing: Candidate = {"span": "", "start": -1, "end": -1, "score": float((read.starts[:, 0] + read.ends[:, 0]).min())}
        best = found[0] if found else nothing
        silent = self.unanswerable and nothing["score"] - best["score"] > self.null_threshold
        if self.unanswerable:
            found = sorted([*found, nothing], key=lambda candidate: -candidate["score"])[: self.n_best]
        return {**(nothing if silent else best), "n_best": found}

    def _candidates(self, context: str, read: Read) -> list[Candidate]:
        """Return the best spans of all windows, each stretch of characters once."""
        best: dict[tuple[int, int], float] = {}
        for starts, ends, _, labels in zip(*read, strict=True):
            allowed = (labels[:, AnswerColumn.FROM] >= 0) & torch.isfinite(starts)
            allowed[0] = False  # which says "not here"
            for span in best_spans(starts, ends, allowed, self.n_best, self.max_answer_tokens):
                place = int(labels[span.first, AnswerColumn.FROM]), int(labels[span.last, AnswerColumn.BEFORE])
                best[place] = max(span.score, best.get(place, span.score))
        ranked = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))[: self.n_best]
        return [{"span": context[start:end], "start": start, "end": end, "score": score} for (start, end), score in ranked]

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities] if batch.items else [self.modalities, self.head]  # of the embedding in use, the vector of the mask

    def on_train_epoch_end(self) -> None:
        """Refuse to go on without answers.

        Raises:
            ValueError: of no question of the epoch is it known whether it has an answer.
        """
        count = self.trainer.strategy.reduce(torch.tensor(float(self._answered), device=self.device), reduce_op="sum")
        self._answered = 0
        if not count:
            raise ValueError("no question of the epoch has an entry 'answers', a list that is empty where there is none.")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the keys of the samples, and of each the answer and the candidates."""
        if not batch.items:
            self._encode_nothing()
            return {}
        items = batch.items[self.name]
        told = [answer for _, answer in self._told(items, self.forward(items))]
        return {ANSWER: ([batch.keys[number] for number in items.sample.tolist()], told)}

    def _shown(self, score: str) -> bool:
        return score in ("loss", "exact_match", "f1")
