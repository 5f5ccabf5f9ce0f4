"""Characters of an alphabet: what is read of a text, and that it comes back."""

import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.text import CharacterTokenizer, TextTransform

ENGLISH = "abcdefghijklmnopqrstuvwxyz' "
FRENCH = "abcdefghijklmnopqrstuvwxyzàâçèéêëîïôùûü' "
RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюя "


@pytest.mark.parametrize(
    ("alphabet", "text", "expected"),
    [
        (ENGLISH, "Please, enter:\n your  PIN!", "please enter your pin"),
        (ENGLISH, "You\u2019re re-entering...", "you're re entering"),
        (ENGLISH, "Café Ñandú", "cafe nandu"),
        (ENGLISH, "3 straße 音", "strae"),
        (ENGLISH, " - ", ""),
        (FRENCH, "À l'e\u0301cran", "à l'écran"),
        (RUSSIAN, "Звёздочка, й Ёлки", "звездочка й елки"),
        ("abc", "a b, C", "abc"),
        ("xyz ", "ab", ""),
    ],
)
def test_a_text_is_read_as_the_alphabet_has_it(alphabet, text, expected):
    tokenizer = CharacterTokenizer(alphabet)
    ids = tokenizer.encode_text(text)
    assert ids.tolist() == [alphabet.index(character) for character in expected]
    assert tokenizer.normalized(text) == tokenizer.decode(ids) == expected


@given(st.text())
def test_what_is_read_is_of_the_alphabet_and_is_read_the_same_again(text):
    tokenizer = CharacterTokenizer(FRENCH)
    once = tokenizer.normalized(text)
    assert set(once) <= set(FRENCH) and "  " not in once and once == once.strip()
    assert tokenizer.normalized(once) == once == tokenizer.decode(tokenizer.encode_text(text))
    assert tokenizer.normalized(unicodedata.normalize("NFD", text)) == once


def test_case_is_kept_where_wanted():
    assert CharacterTokenizer("abAB ", lower_case=False).decode(CharacterTokenizer("abAB ", lower_case=False).encode_text("Ab B")) == "Ab B"


def test_a_strict_one_refuses_letters_and_digits_that_it_would_leave_out():
    strict = CharacterTokenizer(ENGLISH, strict=True)
    assert strict.normalized("Café, s'il vous plaît!") == "cafe s'il vous plait"
    for text, character in (("press 1", "1"), ("straße", "ß")):
        with pytest.raises(ValueError, match=f"the text has '{character}', which the alphabet lacks"):
            strict.encode_text(text)


def test_ids_of_no_character_are_left_out():
    assert CharacterTokenizer("ab").decode(torch.tensor([0, -1, 2, 1, 99])) == "ab"


def test_a_transform_reads_transcripts():
    transform = TextTransform(CharacterTokenizer(ENGLISH))
    assert transform.tokenizer.decode(transform.decode("Voicemail — main menu.".encode())) == "voicemail main menu"
    with pytest.raises(ValueError, match="0 tokens; at least min_tokens 1 are wanted"):
        transform.decode(b"...")


def test_a_saved_one_comes_back(tmp_path):
    tokenizer = CharacterTokenizer(RUSSIAN, strict=True)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert isinstance(again, CharacterTokenizer) and (again.alphabet, again.lower_case, again.strict) == (RUSSIAN, True, True)
    assert again.fingerprint() == tokenizer.fingerprint() and again.vocab_sizes == (len(RUSSIAN),)
    others = (CharacterTokenizer(RUSSIAN), CharacterTokenizer(RUSSIAN[::-1], strict=True))
    assert len({tokenizer.fingerprint(), *(other.fingerprint() for other in others)}) == 3


@pytest.mark.parametrize(
    ("alphabet", "settings", "message"),
    [
        ("", {}, "alphabet is empty"),
        ("abca", {}, "alphabet has 'a' more than once"),
        ("abC", {}, "alphabet has 'C', which no text in lower case has"),
        ("ab\t", {}, r"alphabet has '\\t', which no text has in composed form"),
        ("e\u0301", {}, "which no text has in composed form"),
        ("\u212b", {"lower_case": False}, "which no text has in composed form"),  # the sign of the ångström is the letter
    ],
)
def test_an_alphabet_that_cannot_be_is_refused(alphabet, settings, message):
    with pytest.raises(ValueError, match=message):
        CharacterTokenizer(alphabet, **settings)
