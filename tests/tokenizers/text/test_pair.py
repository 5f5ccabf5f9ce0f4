"""Pairs of texts: the ids, types and truncation of transformers, from files or from entries."""

import json
from functools import partial

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from multimodal.modality import Input
from multimodal.tokenizers.text import ByteTokenizer, FileTokenizer, TextEmbed, TextPairTransform
from multimodal.tokenizers.text.pair import longest_first
from tests.tokenizers.text.word_pieces import write_vocabulary

PAIRS = [("the cat sat", "on the mat"), ("a cat", "the mat, the cat and the long unheard story of the mat"), ("cat " * 40, "mat " * 9)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("vocabulary"), ["the", "cat", "sat", "on", "mat", "and", "story", "##ry"])


def made(transform, first, second):
    decoded, labels = transform.decode(first.encode()), transform.decode_labels(second.encode())
    return transform.labelled(decoded, labels, torch.Generator(), train=False)


@pytest.mark.parametrize("max_tokens", [8, 13, 24, 128])
def test_ids_types_and_truncation_are_those_of_transformers(file, max_tokens):
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file))
    own = TextPairTransform(FileTokenizer(str(file), special_tokens=True), max_tokens)
    for first, second in PAIRS:
        expected = theirs(first, second, truncation="longest_first", max_length=max_tokens, return_token_type_ids=True)
        values = made(own, first, second).values
        assert values[:, 0].tolist() == expected["input_ids"]
        assert values[:, 1].tolist() == expected["token_type_ids"]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 40))
def test_longest_first_is_that_of_the_tokenizers_library(first, second, room):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(room, strategy="longest_first")
    ids = tokenizer.encode("a " * first, "b " * second).ids
    assert longest_first(first, second, room) == (ids.count(0), ids.count(1))


def test_entries_of_the_metadata_are_read_instead_of_files(file):
    tokenizer = FileTokenizer(str(file), special_tokens=True)
    data = json.dumps({"premise": PAIRS[0][0], "hypothesis": PAIRS[0][1], "label": "x"}).encode()
    transform = TextPairTransform(tokenizer, entries=("premise", "hypothesis"))
    assert transform.extensions == transform.label_extensions == ("json",)
    item = transform.labelled(transform.decode(data), transform.decode_labels(data), torch.Generator(), train=True)
    assert item.values.equal(made(TextPairTransform(tokenizer), *PAIRS[0]).values)
    with pytest.raises(ValueError, match="no entry 'hypothesis'; there are premise"):
        transform.decode_labels(b'{"premise": "a"}')
    with pytest.raises(ValueError, match="the entry 'premise' must be a text that is not empty, got '3'"):
        transform.decode(b'{"premise": 3}')


def test_what_cannot_be_a_pair_is_refused(file):
    tokenizer = FileTokenizer(str(file), special_tokens=True)
    with pytest.raises(ValueError, match="ByteTokenizer puts no mark after a text"):
        TextPairTransform(ByteTokenizer())
    with pytest.raises(ValueError, match="fields must be two different names, got"):
        TextPairTransform(tokenizer, fields=("a.txt", "a.txt"))
    with pytest.raises(ValueError, match="max_tokens must be at least 5, got 4"):
        TextPairTransform(tokenizer, max_tokens=4)
    transform = TextPairTransform(tokenizer)
    with pytest.raises(ValueError, match=r"no second text: no field b\.txt"):
        transform(transform.decode(b"cat"), torch.Generator(), train=False)


def test_an_embedding_of_one_type_refuses_pairs_and_one_without_types_takes_them(file):
    transform = TextPairTransform(FileTokenizer(str(file), special_tokens=True))
    embed = partial(TextEmbed, vocab_size=200, num_types=1)
    with pytest.raises(ValueError, match="TextPairTransform makes tokens of 2 types, but the embedding has num_types 1"):
        Input(8, transform, embed)
    plain, values = TextEmbed(8, 200), made(transform, *PAIRS[0]).values
    lengths = torch.tensor([len(values)])
    assert plain(plain.tokens(values, lengths)).equal(plain(plain.tokens(values[:, 0], lengths)))
