"""Tagged words: both layouts of files, and windows in which each word is told once at its first token."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.text import ByteTokenizer, FileTokenizer, WordTagTransform
from multimodal.tokenizers.text.tagged_words import read_tagged_words
from multimodal.windowed import TagColumn, unpack
from tests.tokenizers.text.word_pieces import write_vocabulary

CLASSES = ("O", "B-PER", "I-PER")
CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLovelace NNP I-PER\nwrote VBD O\n\n# id = 7\nNotes NNS O\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = write_vocabulary(tmp_path_factory.mktemp("vocabulary"), ["ada", "wrote", "notes", "love", "##lace"])
    return FileTokenizer(str(path), special_tokens=True)


def test_columns_are_words_and_tags_in_sentences():
    assert read_tagged_words(CONLL.encode()) == (["Ada", "Lovelace", "wrote", "Notes"], ["B-PER", "I-PER", "O", "O"], [0, 0, 0, 1])
    assert read_tagged_words(b"New York\tB-LOC\r\n# sign\tO\r\n") == (["New York", "# sign"], ["B-LOC", "O"], [0, 0])
    assert read_tagged_words(b"just\nwords\n") == (["just", "words"], None, [0, 0])
    assert read_tagged_words(b"a O\n# O\n") == (["a", "#"], ["O", "O"], [0, 0])


def test_json_holds_one_sentence_or_several():
    assert read_tagged_words(b'{"words": ["a", "b"], "tags": ["O", "X"]}') == (["a", "b"], ["O", "X"], [0, 0])
    assert read_tagged_words(b'{"words": [["a"], [], ["b", "c"]]}') == (["a", "b", "c"], None, [0, 1, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a O\nb\n", "line 2 must hold a word and its tag, got 'b'"),
        (b"a\nb O\n", "line 2 must hold a word alone, as in the lines before, got 'b O'"),
        (b"a\tO\nb\t\n", "line 2 must hold a word and its tag"),
        (b"# only\n\n", "the file has no words"),
        (b'{"tags": ["O"]}', "no entry 'words'; there are tags"),
        (b'{"words": ["a"], "tags": ["O", "O"]}', "1 words and 2 tags"),
        (b'{"words": ["a", " "]}', "words must be a list of texts that are not empty"),
        (b'{"words": "a b"}', "words must be a list of texts"),
        (b'{"words": ["a"]', "not a JSON object"),
    ],
)
def test_files_of_neither_layout_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_tagged_words(data)


def made(transform, data, train=False, seed=0):
    decoded, labels = transform.decode(data), transform.decode_labels(data)
    return transform.labelled(decoded, labels, torch.Generator().manual_seed(seed), train)


def test_the_class_stands_at_the_first_token_of_each_word(tokenizer):
    item = made(WordTagTransform(tokenizer, CLASSES), CONLL.encode())
    ids = tokenizer.encode_text("Ada Lovelace wrote Notes")  # Lovelace is two pieces
    assert item.values.tolist() == [*tokenizer.start_ids, *ids.tolist(), *tokenizer.end_ids]
    assert item.labels[:, TagColumn.TAG].tolist() == [-1, 1, 2, -1, 0, 0, -1]
    assert item.labels[:, TagColumn.WORD].tolist() == [-1, 0, 1, -1, 2, 3, -1]
    assert item.labels[:, TagColumn.SENTENCE].tolist() == [-1, 0, 0, -1, 0, 1, -1]
    assert item.labels[:, TagColumn.WINDOW].tolist() == [0] * 7
    assert unpack(item.tokenizer_values) == [["Ada", "Lovelace", "wrote", "Notes"]]


WORDS = st.lists(st.text("abcdefg\u0301é字", min_size=1, max_size=9), min_size=1, max_size=40)


@settings(deadline=None, max_examples=50)
@given(WORDS, st.integers(8, 30))
def test_no_word_is_lost_in_evaluation(tokenizer, words, max_tokens):
    transform = WordTagTransform(tokenizer, CLASSES, max_tokens=max_tokens, overlap=4)
    tags = [CLASSES[len(word) % 3] for word in words]
    item = made(transform, json.dumps({"words": words, "tags": tags}).encode())
    rows = item.labels[item.labels[:, TagColumn.WORD] >= 0]
    assert rows[:, TagColumn.WORD].tolist() == list(range(len(words)))
    assert [CLASSES[number] for number in rows[:, TagColumn.TAG].tolist()] == tags
    lengths = item.labels[:, TagColumn.WINDOW].bincount()
    assert int(lengths.max()) <= max_tokens
    starts = lengths.cumsum(0) - lengths
    assert (item.values[starts] == tokenizer.start_ids[0]).all() and (item.values[starts + lengths - 1] == tokenizer.end_ids[0]).all()
    assert unpack(item.tokenizer_values) == [words]


def test_in_training_one_window_is_drawn(tokenizer):
    transform = WordTagTransform(tokenizer, CLASSES, max_tokens=12, overlap=2)
    data = json.dumps({"words": ["ada"] * 40, "tags": ["O"] * 40}).encode()
    drawn = {tuple(made(transform, data, True, seed).labels[:, TagColumn.WORD].tolist()) for seed in range(40)}
    assert len(drawn) == 5 and {word for words in drawn for word in words} == {-1, *range(40)}
    item = made(transform, data, True)
    assert len(item.values) <= 12 and item.tokenizer_values is None and (item.labels[:, TagColumn.WINDOW] == item.labels[0, 0]).all()


def test_long_words_are_cut_and_bytes_are_tokens_too():
    transform = WordTagTransform(ByteTokenizer(), CLASSES, max_tokens=6, overlap=1)
    item = made(transform, json.dumps({"words": ["abcdefghij", "k"], "tags": ["B-PER", "O"]}).encode())
    assert transform.tokenizer.decode(item.values) == "abcdef k"
    assert item.labels[:, TagColumn.TAG].tolist() == [1, -1, -1, -1, -1, -1, 0, -1]


def test_a_word_of_no_token_is_read_as_a_question_mark(tokenizer):
    item = made(WordTagTransform(tokenizer, CLASSES), json.dumps({"words": ["ada", "\u200b"], "tags": ["O", "B-PER"]}).encode())
    assert item.values[2] == tokenizer.encode_text("?")[0] and item.labels[2, TagColumn.TAG] == 1


def test_settings_and_tags_out_of_place_are_refused(tokenizer):
    with pytest.raises(ValueError, match="the tag 'B-LOC' of 'Rome' is none of the classes O, B-PER, I-PER"):
        WordTagTransform(tokenizer, CLASSES).decode_labels(b"Rome B-LOC\n")
    with pytest.raises(ValueError, match="classes must be different tags"):
        WordTagTransform(tokenizer, ["O", "O"])
    with pytest.raises(ValueError, match=r"overlap must be in \[0, 6\)"):
        WordTagTransform(tokenizer, CLASSES, max_tokens=8, overlap=6)
