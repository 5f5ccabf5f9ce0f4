"""Texts become ids and come back; what is no text is refused with its place."""

import hashlib
import json
import unicodedata

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer

from multimodal.tokenizers.pretrained import load_tokenizer
from multimodal.tokenizers.text import ByteTokenizer, FileTokenizer, TextTransform, decode_text
from tests.tokenizers.text.word_pieces import write_vocabulary

WORDS = {"[UNK]": 0, "the": 1, "drum": 2, "hit": 3, "apple": 7}


@pytest.fixture
def file(tmp_path):
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    path = tmp_path / "vocabulary" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.text(min_size=1).filter(str.strip))
def test_every_text_comes_back_in_composed_form(text):
    transform = TextTransform(max_tokens=10_000)
    ids = transform(transform.decode(text.encode()), draw(), train=False).values
    assert ids.dtype == torch.int64 and ids.min() >= 3 and ids.max() < 259
    assert transform.tokenizer.decode(ids) == unicodedata.normalize("NFC", text.removeprefix("\ufeff"))


def test_decomposed_letters_are_composed_and_the_byte_order_mark_is_left_out():
    assert decode_text(b"\xef\xbb\xbfcafe\xcc\x81") == "caf\u00e9"


def test_byte_ids_are_those_of_byt5():
    for text in ("naïve", "ピアノ", "a\tb\n"):
        assert ByteTokenizer().encode_text(text).tolist() == ByT5Tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_any_predicted_bytes_decode():
    assert ByteTokenizer().decode(torch.tensor([0, 1, 2, 3 + 0xC3, 3 + ord("a"), 258, 300])) == "\ufffda\ufffd"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty text: 0 bytes"),
        (b"\xef\xbb\xbf", "an empty text: 3 bytes"),
        (b" \n\t", "an empty text: 3 bytes, 3 characters of white space"),
        (b"abc\xffdef", "not UTF-8: byte 0xff at offset 3 of 7"),
        (b"\xef\xbb\xbfab\xe9", "not UTF-8: byte 0xe9 at offset 5 of 6"),
        (b"\xed\xa0\x80", "not UTF-8: byte 0xed at offset 0 of 3"),
        (b"a" * 101, "a text of 101 bytes is over max_bytes 100"),
    ],
)
def test_what_is_no_text_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_text(data, max_bytes=100)


def test_windows_are_consecutive_and_reach_both_ends():
    transform, generator = TextTransform(max_tokens=20), draw()
    ids = transform.decode(bytes(range(65, 91)))
    firsts = set()
    for _ in range(200):
        item = transform(ids, generator, train=True)
        assert item.ragged and len(item.values) == 20 and (item.values.diff() == 1).all()
        firsts.add(int(item.values[0]) - 68)
    assert firsts == set(range(7))
    assert transform(ids, generator, train=False).values[0] == 68


def test_short_texts_are_refused():
    with pytest.raises(ValueError, match="2 tokens; at least min_tokens 3"):
        TextTransform(min_tokens=3).decode(b"ab")


def test_a_vocabulary_file_gives_its_ids_uncut_and_without_padding(file):
    tokenizer = FileTokenizer(str(file))
    assert tokenizer.vocab_sizes == (8,)  # one more than the highest id
    assert tokenizer.encode_text("the drum hit the zebra").tolist() == [1, 2, 3, 1, 0]
    assert tokenizer.decode(torch.tensor([1, 2])) == "the drum"
    assert tokenizer.fingerprint() == hashlib.sha256(file.read_bytes()).hexdigest()
    assert FileTokenizer(str(file.parent)).fingerprint() == tokenizer.fingerprint()


def test_a_saved_vocabulary_loads_from_anywhere(file, tmp_path):
    FileTokenizer(str(file)).save_pretrained(tmp_path / "saved")
    file.unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    for load in (FileTokenizer.from_pretrained, load_tokenizer):
        assert load(str(tmp_path / "moved")).encode_text("drum").tolist() == [2]
    copy = tmp_path / "moved" / "tokenizer.json"
    copy.write_text(copy.read_text().replace("drum", "harp"))
    with pytest.raises(ValueError, match="is not what was saved"):
        FileTokenizer.from_pretrained(tmp_path / "moved")


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"model": 3}), "not json"])
def test_files_that_are_no_vocabulary_are_refused(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="no tokenizer at"):
        FileTokenizer(str(path))
    path.write_text(content)
    with pytest.raises(ValueError, match=r"is no tokenizer\.json"):
        FileTokenizer(str(path))


def test_fingerprints_tell_tokenizers_apart(file):
    assert ByteTokenizer().fingerprint() == ByteTokenizer().fingerprint() != FileTokenizer(str(file)).fingerprint()


def test_byte_tokenizers_are_saved_and_loaded(tmp_path):
    ByteTokenizer().save_pretrained(tmp_path)
    assert isinstance(load_tokenizer(str(tmp_path)), ByteTokenizer)


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"min_tokens": 0}, "min_tokens"), ({"max_tokens": 3, "min_tokens": 4}, "max_tokens"), ({"max_bytes": 0}, "max_bytes")],
)
def test_impossible_settings_are_refused(settings, name):
    with pytest.raises(ValueError, match=name):
        TextTransform(**settings)


@pytest.fixture
def marked(file):
    """The vocabulary with what BERT puts around a text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special)
    tokenizer.save(str(file))
    return file


def test_special_tokens_stand_around_every_window_on_request(marked):
    plain, tokenizer = FileTokenizer(str(marked)), FileTokenizer(str(marked), special_tokens=True)
    start, end = tokenizer.start_ids[0], tokenizer.end_ids[0]
    assert (plain.start_ids, plain.end_ids) == ((), ())
    assert tokenizer.decode(torch.tensor([start, 1, 2, end])) == "the drum"
    transform = TextTransform(tokenizer, max_tokens=5)
    ids = transform.decode(b"the drum hit the apple")
    assert ids.tolist() == [1, 2, 3, 1, 7] == plain.encode_text("the drum hit the apple").tolist()
    assert transform(ids, draw(), train=False).values.tolist() == [start, 1, 2, 3, end]
    windows = {tuple(transform(ids, draw(seed), train=True).values.tolist()) for seed in range(20)}
    assert windows == {(start, *ids[i : i + 3].tolist(), end) for i in range(3)}
    assert transform.example().values.tolist() == [start, 0, end]


def test_a_window_must_have_room_beside_the_special_tokens(marked):
    tokenizer = FileTokenizer(str(marked), special_tokens=True)
    with pytest.raises(ValueError, match=r"min_tokens must be in \[1, max_tokens - 2\], got min_tokens 1 and max_tokens 2"):
        TextTransform(tokenizer, max_tokens=2)
    assert TextTransform(tokenizer, max_tokens=3)._room == 1


def test_special_tokens_are_saved_and_are_part_of_the_fingerprint(marked, tmp_path):
    plain, tokenizer = FileTokenizer(str(marked)), FileTokenizer(str(marked), special_tokens=True)
    wide = FileTokenizer(str(marked), vocab_size=64)
    assert len({plain.fingerprint(), tokenizer.fingerprint(), wide.fingerprint()}) == 3
    assert plain.fingerprint() == hashlib.sha256(marked.read_bytes()).hexdigest()
    for original in (plain, tokenizer, wide):
        original.save_pretrained(tmp_path / original.fingerprint())
        loaded = load_tokenizer(str(tmp_path / original.fingerprint()))
        assert (loaded.start_ids, loaded.end_ids, loaded.vocab_sizes) == (original.start_ids, original.end_ids, original.vocab_sizes)


def test_a_padded_vocabulary_is_as_large_as_its_model_says(marked):
    plain = FileTokenizer(str(marked))
    assert FileTokenizer(str(marked), vocab_size=64).vocab_sizes == (64,) != plain.vocab_sizes
    with pytest.raises(ValueError, match=f"vocab_size 3 is too small: .* has ids up to {plain.vocab_sizes[0] - 1}"):
        FileTokenizer(str(marked), vocab_size=3)


def test_the_marks_of_a_window_are_known_by_their_ids(file):
    tokenizer = FileTokenizer(str(file))
    ids = torch.tensor([1, 7, 2])
    assert tokenizer.marks(ids) is None
    tokenizer.start_ids, tokenizer.end_ids = (7,), (3,)
    assert tokenizer.marks(tokenizer.mark(ids)).tolist() == [True, False, True, False, True]


def test_ids_that_stand_for_no_text_are_told_apart(tmp_path):
    bert = FileTokenizer(str(write_vocabulary(tmp_path, ["drum"])), special_tokens=True, vocab_size=100)
    (kinds,) = bert.kinds()
    text = bert.encode_text("a drum, 12")
    assert len(kinds) == 100 and (kinds[text] == 0).all()
    assert kinds[:5].tolist() == [-1] * 5, "[PAD], [UNK], [CLS], [SEP], [MASK]"
    assert kinds[max(text.tolist()) + 1 :].tolist() == [-1] * (99 - max(text.tolist())), "ids up to vocab_size that the file does not have"
    (kinds,) = ByteTokenizer().kinds()
    assert kinds.tolist() == [-1] * 3 + [0] * 256


def test_a_text_becomes_a_file_of_its_own():
    tokenizer = ByteTokenizer()
    assert tokenizer.file_of(tokenizer.encode_text("naïve")) == ("txt", "naïve".encode())
