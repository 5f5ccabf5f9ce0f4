"""Vocabularies hold what was promised: the same file each time, and every text but for the stated losses."""

import json
import subprocess
import sys
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.text import FileTokenizer
from multimodal.tokenizers.vocabularies.measure import measure
from multimodal.tokenizers.vocabularies.train import KINDS, SPECIALS, Settings, train_vocabulary

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n",
    "Große Straßen führen über weite Brücken; die Straße über die Brücke.\n",
    "Le café où l'élève a été élevé était fermé.\n",
    "Съешь ещё этих мягких французских булок, да выпей чаю.\n",
    "日本語の文章には空白がない。日本の言語。\n",
    "lower lowest newer newest wider widest slower slowest\n",
] * 3
ANY = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
TRICKY = st.lists(
    st.sampled_from(["<0x41>", " ", "  ", "\n", "\r\n", "\t", "the", "Straße", "e\u0301", "🙂", "漢", "\x00", "##a", "İ"])
).map("".join)


@pytest.fixture(scope="module")
def trained():
    return {(kind, lower): train_vocabulary(TEXTS, Settings(kind, 600, lower)) for kind in KINDS for lower in (False, True)}


def back(tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_berts_and_stand_around_texts(trained, kind):
    tokenizer = trained[kind, False]
    assert [tokenizer.token_to_id(name) for name in SPECIALS] == [0, 1, 2, 3, 4]
    one, two = tokenizer.encode("the dog"), tokenizer.encode("the dog", "the fox")
    assert one.ids[0] == 2 and one.ids[-1] == 3 and not {2, 3} & set(one.ids[1:-1])
    assert two.ids.count(3) == 2 and two.type_ids[0] == 0 and two.type_ids[-1] == 1
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size())), "ids without gaps"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=ANY | TRICKY)
def test_bytes_keep_every_text_in_its_composed_form(trained, kind, text):
    expected = unicodedata.normalize("NFC", text)
    assert back(trained[kind, False], text) == (expected.replace("\u2581", " ") if kind == "unigram" else expected)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=TRICKY)
def test_lower_case_is_the_only_other_loss(trained, kind, text):
    assert back(trained[kind, True], text) == unicodedata.normalize("NFC", text).lower()


def test_word_pieces_lose_white_space_and_unknown_words_but_no_accents(trained):
    tokenizer = trained["wordpiece", False]
    assert back(tokenizer, "the  Straße\tété\n") == "the Straße été"
    assert tokenizer.encode("the 🙂 dog", add_special_tokens=False).ids.count(1) == 1
    assert back(trained["wordpiece", True], "Straße") == "straße"


@given(
    text=st.lists(st.sampled_from(sorted({word for text in TEXTS for word in text.split() if word.isalpha() and word.isascii()}))).map(
        " ".join
    )
)
def test_word_pieces_keep_known_words(trained, text):
    assert back(trained["wordpiece", False], text) == text


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_file_in_another_process(kind):
    code = (
        "from multimodal.tokenizers.vocabularies.train import Settings, train_vocabulary\n"
        "import hashlib, sys\n"
        f"texts = {TEXTS!r}\n"
        f"print(hashlib.sha256(train_vocabulary(texts, Settings({kind!r}, 600)).to_str().encode()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert len(set(runs)) == 1 and len(runs[0].strip()) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_more_ids_make_fewer_tokens_and_frequent_words_are_whole(trained, kind):
    sizes = (170, 250) if kind == "wordpiece" else (370, 410)
    small, large = (train_vocabulary(TEXTS, Settings(kind, size)) for size in sizes)
    assert measure(large, TEXTS).tokens < measure(small, TEXTS).tokens
    assert small.get_vocab_size() <= sizes[0] < large.get_vocab_size() <= sizes[1]
    assert len(large.encode("the" if kind == "wordpiece" else " the", add_special_tokens=False).ids) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_vocabulary_is_read_by_us_and_by_transformers_alike(trained, kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(trained[kind, False].to_str(), encoding="utf-8")
    ours = FileTokenizer(str(tmp_path), special_tokens=True)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert ours.mark(ours.encode_text(text)).tolist() == theirs(text)["input_ids"]
    ours.save_pretrained(tmp_path / "saved")
    again = load_tokenizer(str(tmp_path / "saved"))
    assert torch.equal(again.encode_text(TEXTS[0]), ours.encode_text(TEXTS[0]))


def test_word_pieces_of_a_small_vocabulary_keep_the_most_frequent_characters():
    tokenizer = train_vocabulary(["aaaa bbb ccc a b", "z"], Settings("wordpiece", 10))
    assert tokenizer.get_vocab_size() <= 10
    assert tokenizer.encode("a", add_special_tokens=False).ids != [1] and tokenizer.encode("z", add_special_tokens=False).ids == [1]


def test_figures_count_what_was_read():
    tokenizer = train_vocabulary(TEXTS, Settings("wordpiece", 600))
    found = measure(tokenizer, ["the dog", "🙂"])
    assert (found.characters, found.words, found.unknown) == (8, 3, 1)
    assert found.tokens == 1 + len(tokenizer.encode("the dog", add_special_tokens=False).ids)
    assert found.vocab_size == len(json.loads(tokenizer.to_str())["model"]["vocab"])


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_refused(kind):
    with pytest.raises(ValueError, match="hold no text"):
        train_vocabulary([" ", "\n"], Settings(kind, 600))


@pytest.mark.parametrize(
    ("kind", "size", "said"), [("bpe", 261, "at least 262"), ("wordpiece", 9, "at least 10"), ("unigram", 298, "at least 299")]
)
def test_settings_out_of_range_are_refused(kind, size, said):
    with pytest.raises(ValueError, match=said):
        Settings(kind, size)
