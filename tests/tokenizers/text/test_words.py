"""Where words begin, for every kind of vocabulary."""

import json

import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from multimodal.tokenizers.text import ByteTokenizer, CharacterTokenizer, FileTokenizer

TEXTS = ["the drums of the drummer drum and drum", "unhappy drummers, happily drumming", "hip hop hippity hopping hips"] * 20


def begun(tokenizer, text: str) -> list[str]:
    """Return the words of a text: runs of its ids up to where the next word begins."""
    ids = tokenizer.encode_text(text)
    begins, words = tokenizer.begins(ids).tolist(), []
    for number, (token, begin) in enumerate(zip(ids.tolist(), begins, strict=True)):
        if begin or number == 0:
            words.append([])
        words[-1].append(token)
    return [tokenizer.decode(torch.tensor(word)) for word in words]


def trained(path, model, trainer, pre_tokenizer, decoder=None, **parts) -> FileTokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    for name, part in {"decoder": decoder, **parts}.items():
        if part is not None:
            setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    return FileTokenizer(str(path))


def word_piece(path, **parts) -> FileTokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return trained(
        path, models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False), **parts
    )


def byte_level(path) -> FileTokenizer:
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"])
    return trained(path, models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


def unigram(path) -> FileTokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=45, special_tokens=["<unk>"], unk_token="<unk>")
    return trained(path, models.Unigram(), trainer, pre_tokenizers.Metaspace(), decoders.Metaspace())


def test_words_of_wordpiece_begin_without_its_prefix(tmp_path):
    tokenizer = word_piece(tmp_path)
    assert (tokenizer.encode_text("drummer unhappy").shape[0]) > 2  # words of several pieces
    assert begun(tokenizer, "drummer unhappy, hip") == ["drummer", "unhappy", ",", "hip"]


def test_words_of_byte_level_vocabularies_begin_with_a_space_or_after_a_line(tmp_path):
    tokenizer = byte_level(tmp_path)
    assert begun(tokenizer, "drum hippity hop") == ["drum", " hippity", " hop"]
    assert begun(tokenizer, "drum\nhippity\n\thop") == ["drum", "\n", "hippity", "\n", "\t", "hop"]
    ids = tokenizer.encode_text("<s>drum")
    assert tokenizer.begins(ids).tolist()[:2] == [True, True]  # what follows a special token begins


def test_words_of_sentencepiece_begin_with_its_space(tmp_path):
    tokenizer = unigram(tmp_path)
    assert len(tokenizer.encode_text("hippity drumming hop")) > 3
    assert begun(tokenizer, "hippity drumming hop") == ["hippity", "drumming", "hop"]


def test_llama_s_vocabularies_are_known_by_their_normalizer(tmp_path):
    tokenizer = Tokenizer(models.BPE({"\u2581": 0, "a": 1, "b": 2, "\u2581a": 3}, [("\u2581", "a")]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    own = FileTokenizer(str(tmp_path))
    ids = own.encode_text("ab b")
    assert ids.tolist() == [3, 2, 0, 2] and own.begins(ids).tolist() == [True, False, True, False]


def test_a_suffix_ends_words(tmp_path):
    trainer = trainers.BpeTrainer(vocab_size=40, end_of_word_suffix="</w>")
    model = models.BPE(end_of_word_suffix="</w>")
    tokenizer = trained(tmp_path, model, trainer, pre_tokenizers.Whitespace(), decoders.BPEDecoder())
    assert len(tokenizer.encode_text("hippity drumming")) > 2
    assert [word.strip() for word in begun(tokenizer, "hippity drumming")] == ["hippity", "drumming"]


def test_every_id_of_whole_words_begins_one(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"the": 0, "drum": 1}, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert FileTokenizer(str(tmp_path)).begins(torch.tensor([0, 1, 1])).all()


def test_vocabularies_that_tell_no_words_apart_say_so(tmp_path):
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert FileTokenizer(str(tmp_path)).begins(torch.tensor([0, 1])) is None


def test_special_tokens_are_words_of_their_own_and_the_table_spans_padded_ids(tmp_path):
    tokenizer = word_piece(tmp_path)
    path = tmp_path / "tokenizer.json"
    inner = Tokenizer.from_file(str(path))
    inner.add_special_tokens([AddedToken("##extra", special=True)])
    inner.save(str(path))
    padded = FileTokenizer(str(path), vocab_size=100)
    extra = json.loads(path.read_text())["added_tokens"][-1]["id"]
    assert padded.begins(torch.tensor([99, extra, 99])).tolist() == [False, True, True]
    assert tokenizer.begins(torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_asking_for_words_leaves_the_fingerprint(tmp_path):
    tokenizer = word_piece(tmp_path)
    before = tokenizer.fingerprint()
    tokenizer.begins(tokenizer.encode_text("drum"))
    assert tokenizer.fingerprint() == before


@given(st.text(alphabet="abé \n\t", min_size=1))
def test_words_of_bytes_are_those_between_white_space(text):
    tokenizer = ByteTokenizer()
    words = begun(tokenizer, "x" + text)
    assert [word.strip() for word in words] == ("x" + text).split() and "".join(words) == "x" + text


def test_specials_among_bytes_are_words_of_their_own():
    a, space = 3 + ord("a"), 3 + ord(" ")
    begins = ByteTokenizer().begins(torch.tensor([a, a, 1, a, space, space, a]))
    assert begins.tolist() == [True, False, True, True, False, False, True]


@given(st.text(alphabet="ab ", min_size=1).filter(str.strip))
def test_words_of_characters_are_those_between_spaces(text):
    tokenizer = CharacterTokenizer("ab ")
    assert [word.strip() for word in begun(tokenizer, text)] == text.split()


def test_an_alphabet_without_a_space_has_no_words():
    assert CharacterTokenizer("ab").begins(torch.tensor([0, 1])) is None
