"""Questions about texts: the layouts of SQuAD, and windows in which the tokens of an answer are those of its characters."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.text import ByteTokenizer, FileTokenizer, QuestionTransform
from multimodal.tokenizers.text.question import Answer, read_question
from multimodal.windowed import AnswerColumn, unpack
from tests.tokenizers.text.word_pieces import write_vocabulary

CONTEXT = "Naïve Ada wrote the Notes. The notes, (1843), were read in Turin."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = write_vocabulary(tmp_path_factory.mktemp("vocabulary"), ["ada", "wrote", "the", "notes", "who", "were", "read", "in"])
    return FileTokenizer(str(path), special_tokens=True)


def data_of(answer, context=CONTEXT, **more):
    answers = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
    return json.dumps({"question": "Who wrote?", "context": context, "answers": answers, **more}).encode()


def made(transform, data, train=False, seed=0):
    return transform.labelled(transform.decode(data), None, torch.Generator().manual_seed(seed), train)


def test_both_layouts_of_answers_are_read():
    rows = data_of("Ada")
    columns = json.dumps({"question": "Who wrote?", "context": CONTEXT, "answers": {"text": ["Ada"], "answer_start": [6]}}).encode()
    assert read_question(rows) == read_question(columns)
    assert read_question(rows).answers == (Answer("Ada", 6),)
    assert read_question(data_of(None)).answers == () == read_question(data_of("Ada", is_impossible=True)).answers
    assert read_question(b'{"question": "Who?", "context": "I."}').answers is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"context": "x"}, "no entry 'question'; there are context"),
        ({"question": "q", "context": "I am", "answers": [{"text": "am", "answer_start": 1}]}, "'am' does not stand at character 1"),
        ({"question": "q", "context": "I am", "answers": [{"text": "am", "answer_start": -2}]}, "does not stand at character -2"),
        ({"question": "q", "context": "I am", "answers": [{"text": "am", "answer_start": True}]}, "answer_start, a whole number"),
        ({"question": "q", "context": "I am", "answers": [{"text": "", "answer_start": 0}]}, "a text that is not empty"),
        ({"question": "q", "context": "I am", "answers": {"text": ["am"], "answer_start": []}}, "of one length"),
        ({"question": "q", "context": "I am", "answers": "am"}, "answers must be a list"),
    ],
)
def test_what_is_no_question_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_question(json.dumps(content).encode())


def answer_of(item, window=None):
    """Return the characters from where the answer starts to where it ends, None where the first token of a window says there is none."""
    rows = item.labels if window is None else item.labels[item.labels[:, 0] == window]
    start, end = (int(rows[:, column].nonzero()[0, 0]) for column in (AnswerColumn.STARTS, AnswerColumn.ENDS))
    assert int(rows[:, AnswerColumn.STARTS].sum()) == int(rows[:, AnswerColumn.ENDS].sum()) == 1
    return None if start == end == 0 else (int(rows[start, AnswerColumn.FROM]), int(rows[end, AnswerColumn.BEFORE]))


@pytest.mark.parametrize("answer", ["Ada", "1843", "the Notes", "Turin", "Naïve Ada", "(1843)"])
def test_tokens_of_an_answer_are_those_of_its_characters(tokenizer, answer):
    item = made(QuestionTransform(tokenizer, overlap=16), data_of(answer))
    start, end = answer_of(item)
    assert CONTEXT[start:end] == answer
    assert unpack(item.tokenizer_values) == [[CONTEXT, answer]]
    asked = tokenizer.encode_text("Who wrote?").tolist()
    ids, types = item.values.unbind(1)
    assert ids[: len(asked) + 2].tolist() == [*tokenizer.start_ids, *asked, *tokenizer.end_ids]
    assert types.tolist() == [0] * (len(asked) + 2) + [1] * (len(ids) - len(asked) - 2)
    assert (item.labels[types == 0, AnswerColumn.FROM] == -1).all() and item.labels[-1, AnswerColumn.FROM] == -1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 60), st.integers(1, 6), st.integers(12, 30), st.integers(0, 7))
def test_windows_hold_all_of_the_text_and_say_where_the_answer_is(tokenizer, first, count, max_tokens, overlap):
    words = [f"w{number}" for number in range(70)]
    context, answer = " ".join(words), " ".join(words[first : first + count])
    item = made(QuestionTransform(tokenizer, max_tokens, overlap, max_question_tokens=1), data_of(answer + " ", context + " "))
    start = context.index(answer)
    windows = int(item.labels[:, 0].max()) + 1
    seen = set()
    for window in range(windows):
        own = item.labels[item.labels[:, 0] == window]
        assert len(own) <= max_tokens
        there = own[own[:, AnswerColumn.FROM] >= 0]
        seen |= {tuple(row) for row in there[:, 1:3].tolist()}
        inside = int(there[0, 1]) <= start and start + len(answer) <= int(there[-1, 2])
        assert answer_of(item, window) == ((start, start + len(answer)) if inside else None)
    assert {place for place, _ in seen} >= {context.index(word) for word in words}


def test_nothing_is_said_where_answers_are_not_known(tokenizer):
    item = made(QuestionTransform(tokenizer), b'{"question": "Who?", "context": "Ada wrote."}')
    assert not item.labels[:, AnswerColumn.STARTS :].any() and unpack(item.tokenizer_values) == [["Ada wrote."]]
    none = made(QuestionTransform(tokenizer), data_of(None))
    assert answer_of(none) is None


def test_the_text_may_stand_in_a_file_of_its_own(tokenizer):
    transform = QuestionTransform(tokenizer)
    question = json.dumps({"question": "Who wrote?", "answers": [{"text": "Ada", "answer_start": 6}]}).encode()
    context = transform.decode_labels(CONTEXT.encode())
    item = transform.labelled(transform.decode(question), context, torch.Generator(), train=False)
    assert item.values.equal(made(transform, data_of("Ada")).values) and answer_of(item) == (6, 9)
    with pytest.raises(ValueError, match="no text that the question is about: neither an entry 'context' nor a field txt"):
        made(transform, question)
    with pytest.raises(ValueError, match="'Ada' does not stand at character 6"):
        transform.labelled(transform.decode(question), "Notes by Ada", torch.Generator(), train=False)


def test_in_training_one_window_is_drawn(tokenizer):
    transform = QuestionTransform(tokenizer, max_tokens=20, overlap=4, max_question_tokens=4)
    data = data_of("w3 ", "".join(f"w{number} " for number in range(40)))
    drawn = {tuple(made(transform, data, True, seed).values[:, 0].tolist()) for seed in range(80)}
    every = made(transform, data)
    windows = every.values[:, 0].split(every.labels[:, 0].bincount().tolist())
    assert drawn == {tuple(window.tolist()) for window in windows} and len(drawn) > 3
    assert made(transform, data, True).tokenizer_values is None


def test_settings_without_room_are_refused(tokenizer):
    with pytest.raises(ValueError, match="max_tokens must be above 67"):
        QuestionTransform(tokenizer, max_tokens=67)
    with pytest.raises(ValueError, match="ByteTokenizer puts no mark after a text"):
        QuestionTransform(ByteTokenizer())


def test_bytes_say_their_characters_and_an_alphabet_that_drops_some_is_refused():
    from multimodal.tokenizers.text import CharacterTokenizer

    ids, places = ByteTokenizer().located("é a")
    assert ids.equal(ByteTokenizer().encode_text("é a")) and places.tolist() == [[0, 1], [0, 1], [1, 2], [2, 3]]
    with pytest.raises(ValueError, match="CharacterTokenizer does not say which characters a token is made of"):
        CharacterTokenizer("ab ").located("a b")
