"""Questions about texts -> windows of ids, with the characters of each token and where the answer begins and ends.

Letters in shapes: n tokens of all windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.text.decode import decode_text
from multimodal.tokenizers.text.pair import NUM_TYPES, check_marks, mark_pair, marks_of_pair
from multimodal.tokenizers.text.question import Answer, Question, check_answers, read_question
from multimodal.tokenizers.text.tokenizer import TextTokenizer
from multimodal.tokenizers.text.windows import check_sizes, cut_windows
from multimodal.windowed import AnswerColumn, no_labels, pack


class _Text(NamedTuple):
    """The tokens of a text: their ids ``(n,)``, and the characters of each ``(n, 2)``."""

    ids: Tensor
    places: Tensor


class QuestionTransform(LabelledTransform):
    """A question and the text that answers it, as ``[CLS] question [SEP] text [SEP]`` (BERT, https://arxiv.org/abs/1810.04805).

    A text that is too long is cut into windows that overlap, each with the question before it. In training one of them is drawn; in
    evaluation there are all, end to end. A window that does not hold the whole answer counts as one without. Of several answers the first
    is learned, as in BERT; in evaluation all count.

    Args:
        tokenizer: makes the ids, and must mark the ends of texts: a ``FileTokenizer`` with ``special_tokens``.
        max_tokens: tokens of a window, with the question and the marks. BERT: 384.
        overlap: tokens of the text that a window shares with the one before it. BERT: a stride of 128 tokens; here what is shared is said.
        max_question_tokens: longer questions lose their last tokens. BERT: 64.
        max_bytes: longer files are refused before they are read.

    Raises:
        ValueError: a tokenizer without marks, or sizes that leave windows no room.
    """

    extensions: ClassVar[tuple[str, ...]] = ("json",)
    label_extensions = ("txt",)
    num_types: ClassVar[int] = NUM_TYPES

    def __init__(
        self, tokenizer: TextTokenizer, max_tokens: int = 384, overlap: int = 128, max_question_tokens: int = 64, max_bytes: int = 2**24
    ) -> None:
        check_marks(tokenizer)
        if max_question_tokens < 1:
            raise ValueError(f"max_question_tokens must be at least 1, got {max_question_tokens}.")
        check_sizes(max_tokens, overlap, max_question_tokens + marks_of_pair(tokenizer))
        self.tokenizer, self.max_tokens, self.overlap = tokenizer, max_tokens, overlap
        self.max_question_tokens, self.max_bytes = max_question_tokens, max_bytes

    def decode(self, data: bytes) -> Question:
        """Return the question.

        Raises:
            ValueError: see ``read_question``.
        """
        return read_question(data, self.max_bytes)

    def decode_labels(self, data: bytes) -> str:
        """Return the text, where it stands in a file of its own.

        Raises:
            ValueError: ``decode_text`` refuses the file.
        """
        return decode_text(data, self.max_bytes)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return the characters of the question and the number of answers; of the text where it stands beside them."""
        found = read_question(data, self.max_bytes)
        own = {"question_characters": len(found.question), "answers": len(found.answers or ())}
        return own if found.context is None else own | {"characters": len(found.context)}

    def example(self) -> Item:
        """Return a question and a text of one letter, which answers it."""
        return self.labelled(Question("a", "a", (Answer("a", 0),)), None, torch.Generator(), train=False)

    def labelled(self, decoded: Question, labels: str | None, generator: torch.Generator, train: bool) -> Item:
        """Return ``(n, 2)`` int64, the id and the type of each token; labels ``(n, 5)`` as ``multimodal.windowed.AnswerColumn`` says.

        Not in training also the text and all answers.

        Raises:
            ValueError: there is no text, an answer does not stand in it, or it has no tokens.
        """
        question = decoded if decoded.context is not None else replace(decoded, context=labels)
        if question.context is None:
            raise ValueError(f"no text that the question is about: neither an entry 'context' nor a field {self.label_extensions[0]}.")
        check_answers(question.context, question.answers)
        asked = self.tokenizer.encode_text(question.question)[: self.max_question_tokens]
        text = _Text(*self.tokenizer.located(question.context))
        span = None if question.answers is None else _tokens_of(question.answers, text)
        windows = cut_windows([1] * len(text.ids), self.max_tokens - marks_of_pair(self.tokenizer) - len(asked), self.overlap)
        if train:
            windows = [windows[int(torch.randint(len(windows), (), generator=generator))]]
        parts = [self._window(number, asked, text, window[:2], span) for number, window in enumerate(windows)]
        values, rows = (torch.cat(part) for part in zip(*parts, strict=True))
        texts = None if train else pack([question.context, *(answer.text for answer in question.answers or ())])
        return Item(values, tokenizer_values=texts, ragged=True, labels=rows)

    def _window(
        self, number: int, asked: Tensor, text: _Text, part: tuple[int, int], span: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        """Return ids, types and labels of a window.

        Args:
            number: of the window.
            asked: ids of the question.
            text: all of it.
            part: the first token of the text that the window has, and that after the last.
            span: the first and last token of the answer, (-1, -1) where there is none; None: it is not known.
        """
        first, last = part
        values = mark_pair(self.tokenizer, asked, text.ids[first:last])
        rows = no_labels(len(values), AnswerColumn)
        rows[:, AnswerColumn.WINDOW], rows[:, AnswerColumn.STARTS :] = number, 0
        before = len(values) - (last - first) - len(self.tokenizer.end_ids)
        rows[before : before + last - first, AnswerColumn.FROM : AnswerColumn.STARTS] = text.places[first:last]
        if span is not None:
            inside = first <= span[0] and span[1] < last
            start, end = (before + place - first if inside else 0 for place in span)
            rows[start, AnswerColumn.STARTS], rows[end, AnswerColumn.ENDS] = 1, 1
        return values, rows


def _tokens_of(answers: tuple[Answer, ...], text: _Text) -> tuple[int, int]:
    """Return the first and the last token of the first answer; (-1, -1) where there is none."""
    if not answers:
        return -1, -1
    answer = answers[0]
    touched = ((text.places[:, 1] > answer.start) & (text.places[:, 0] < answer.end)).nonzero()[:, 0]
    if not len(touched):
        raise ValueError(f"the tokenizer makes no token of the answer {answer.text[:40]!r}.")
    return int(touched[0]), int(touched[-1])
