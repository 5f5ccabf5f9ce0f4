"""JSON files of a question, the text that it is about, and its answers, as SQuAD has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multimodal.tokenizers.text.json_entries import read_object, read_text


@dataclass(frozen=True)
class Answer:
    """A part of the text.

    Args:
        text: its characters.
        start: the place of the first of them in the text, from 0.
    """

    text: str
    start: int

    @property
    def end(self) -> int:
        """The place after its last character."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Question:
    """A question about a text.

    Args:
        question: what is asked.
        context: the text; None: it stands in a file of its own.
        answers: what people marked; none: the text does not say it; None: it is not known.
    """

    question: str
    context: str | None
    answers: tuple[Answer, ...] | None


def read_question(data: bytes, max_bytes: int = 2**24) -> Question:
    """Return the question of a JSON object with ``question``, ``context`` and ``answers``.

    Answers are ``[{"text": ..., "answer_start": ...}, ...]`` (SQuAD, https://arxiv.org/abs/1606.05250), or an object of two lists ``text``
    and ``answer_start`` (as the Hub has it); ``answer_start`` counts characters from 0. An empty list, or ``is_impossible: true``, says
    that there is none (SQuAD 2.0, https://arxiv.org/abs/1806.03822).

    Args:
        data: the file.
        max_bytes: of the file, at most.

    Raises:
        ValueError: the file is no such object, or an answer does not stand in the context where it is said to.
    """
    entries = read_object(data, max_bytes)
    context = read_text(entries, "context") if entries.get("context") is not None else None
    answers = () if entries.get("is_impossible") is True else _answers(entries.get("answers"))
    if context is not None:
        check_answers(context, answers)
    return Question(read_text(entries, "question"), context, answers)


def check_answers(context: str, answers: tuple[Answer, ...] | None) -> None:
    """Look whether answers stand in the text where they say.

    Raises:
        ValueError: one does not; the message says what stands there.
    """
    for answer in answers or ():
        found = context[answer.start : answer.end] if answer.start >= 0 else ""
        if found != answer.text:
            raise ValueError(
                f"the answer {answer.text[:40]!r} does not stand at character {answer.start} of the context, where {found[:40]!r} stands."
            )


def _answers(given: Any) -> tuple[Answer, ...] | None:
    if given is None:
        return None
    rows = given
    if isinstance(given, Mapping):
        texts, starts = given.get("text"), given.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ValueError(f"answers must have lists text and answer_start of one length, got {str(given)[:60]!r}.")
        rows = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(rows, list):
        raise ValueError(f"answers must be a list, got {str(given)[:60]!r}.")
    return tuple(_answer(row) for row in rows)


def _answer(row: Any) -> Answer:
    text, start = (row.get("text"), row.get("answer_start")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(text, str) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
        raise ValueError(f"an answer must have a text that is not empty and answer_start, a whole number, got {str(row)[:60]!r}.")
    return Answer(text, start)
