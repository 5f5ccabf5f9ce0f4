"""Vocabularies learned from texts, with Hugging Face's ``tokenizers``: the same texts give the same file.

All kinds have BERT's special tokens, in the order of ``SPECIALS``, and put [CLS] before a text and [SEP] after it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from multimodal.tokenizers.vocabularies.unigram import choose_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

Kind = Literal["wordpiece", "bpe", "unigram"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN, START, END = "[UNK]", "[CLS]", "[SEP]"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
LETTERS_OF_BYTES = "".join(sorted(set("".join(BYTES))))
SPACE = "\u2581"
"""What stands for a space in the pieces of a unigram vocabulary."""
CONTINUED = "##"
"""What pieces begin with that do not begin a word."""
DECIMALS = 6
"""Of the scores of a unigram vocabulary."""
WORST = 10
"""How many times as bad as the worst piece a byte is: worse than the letters of its name one by one."""


@dataclass(frozen=True)
class Settings:
    """What a vocabulary is to be like.

    Args:
        kind: "wordpiece" (BERT), "bpe" of bytes (GPT-2), or "unigram" with bytes for what it lacks (T5, XLM-R).
        vocab_size: number of ids, with the special ones; fewer come out where the texts hold no more.
        lower_case: whether texts are read in lower case.

    Raises:
        ValueError: another kind, or fewer ids than the kind needs.
    """

    kind: Kind
    vocab_size: int = 30_000
    lower_case: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if self.vocab_size < self.fewest:
            raise ValueError(f"vocab_size of {self.kind} must be at least {self.fewest}, got {self.vocab_size}.")

    @property
    def fewest(self) -> int:
        """Ids that are there in any case, and some more."""
        return (
            len(SPECIALS)
            + {"wordpiece": len(SPECIALS), "bpe": len(BYTES) + 1, "unigram": len(BYTES) + 2 * len(LETTERS_OF_BYTES)}[self.kind]
        )


def train_vocabulary(texts: Iterable[str], settings: Settings) -> Tokenizer:
    """Return a tokenizer that was trained on texts.

    WordPiece: words and punctuation are split as BERT does, accents stay; a word with a character that is not in the vocabulary, or of over
    100 characters, is [UNK]; white space and control characters are lost. BPE and unigram keep every text up to its normalisation, which is
    Unicode's composed form (NFC) and, if wanted, lower case; unigram alone reads U+2581, which stands for a space in its pieces, as one.
    The name of a special token in a text is read as that token.

    Args:
        texts: read twice, but by BPE, which reads them once; they need not be in memory.
        settings: what is wanted.

    Raises:
        ValueError: there are no texts.
    """
    train = {"wordpiece": _word_pieces, "bpe": _byte_pairs, "unigram": _unigram}[settings.kind]
    tokenizer = train(_Counted(texts), settings)
    from tokenizers import processors

    ids = [(name, SPECIALS.index(name)) for name in (START, END)]
    pair = f"{START} $A {END} $B:1 {END}:1"
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", pair=pair, special_tokens=ids)
    return tokenizer


class _Counted:
    """Texts that are refused where there are none, before a trainer makes a vocabulary of nothing."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts

    def __iter__(self) -> Iterator[str]:
        some = False
        for text in self.texts:
            some = some or bool(text.strip())
            yield text
        if not some:
            raise ValueError("the sources hold no text: nothing to train a vocabulary on.")


def _normalizer(settings: Settings, *more: Normalizer) -> Normalizer:
    from tokenizers import normalizers

    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if settings.lower_case else []), *more]
    return steps[0] if len(steps) == 1 else normalizers.Sequence(steps)


def _byte_pairs(texts: Iterable[str], settings: Settings) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = _normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=settings.vocab_size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False),
    )
    return tokenizer


def _word_pieces(texts: Iterable[str], settings: Settings) -> Tokenizer:
    """Train pieces of words; those of one character get their ids first, as the trainer meets words in another order each time."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = _normalizer(
        settings, normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    characters: Counter[str] = Counter()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            characters.update((word[0], *(f"{CONTINUED}{character}" for character in word[1:])))
    begins, continued = _alphabet(characters, settings.vocab_size - len(SPECIALS))
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[*SPECIALS, *continued],
        initial_alphabet=begins,
        limit_alphabet=len(begins),
        continuing_subword_prefix=CONTINUED,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    trained = Tokenizer(models.WordPiece(pieces, unk_token=UNKNOWN))
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trained.decoder = decoders.WordPiece(prefix=CONTINUED)
    trained.add_special_tokens(list(SPECIALS))
    return trained


def _alphabet(characters: Counter[str], room: int) -> tuple[list[str], list[str]]:
    """Return the characters that are in the vocabulary, and their continued forms: the most frequent where room is short.

    Each character is there as the beginning of a word too, since the trainer knows no others.
    """
    counts: Counter[str] = Counter()
    for piece, count in characters.items():
        counts[piece.removeprefix(CONTINUED) or piece] += count
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    begins: list[str] = []
    taken = 0
    for character in ranked:
        taken += 1 + (f"{CONTINUED}{character}" in characters)
        if taken > room:
            break
        begins.append(character)
    return sorted(begins), sorted(f"{CONTINUED}{character}" for character in begins if f"{CONTINUED}{character}" in characters)


def _unigram(texts: Iterable[str], settings: Settings) -> Tokenizer:
    """Choose pieces with scores; the bytes are put at the end of the vocabulary, for characters that it lacks."""
    from tokenizers import Tokenizer, decoders, models

    normalizer, cutter = _normalizer(settings), _words_and_lines()
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(normalizer.normalize_str(text).replace(" ", SPACE))
    room = settings.vocab_size - len(SPECIALS) - len(BYTES)
    alphabet = {*LETTERS_OF_BYTES, *_frequent(characters, room // 2)}
    gaps = {ord(character): "\n" for character in characters if character not in alphabet}
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text).translate(gaps)))
    inside = {word: times for word, times in words.items() if alphabet.issuperset(word)}
    scores = choose_pieces(inside, room, alphabet)
    ranked = sorted(((piece, round(score, DECIMALS)) for piece, score in scores.items()), key=lambda entry: (-entry[1], entry[0]))
    byte = round(WORST * ranked[-1][1], DECIMALS)
    vocab = [*((name, 0.0) for name in SPECIALS), *ranked, *((name, byte) for name in BYTES)]
    tokenizer = Tokenizer(models.Unigram(vocab, SPECIALS.index(UNKNOWN), True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, cutter
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def _words_and_lines() -> PreTokenizer:
    """Return what cuts a text before each space and around the ends of lines, and loses nothing."""
    from tokenizers import Regex, pre_tokenizers

    lines = pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated")
    return pre_tokenizers.Sequence([lines, pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never")])


def _frequent(characters: Counter[str], most: int) -> list[str]:
    """Return the most frequent characters; the others are left to bytes, as are the ends of lines."""
    ranked = sorted(set(characters) - set("\r\n"), key=lambda character: (-characters[character], character))
    return ranked[:most]
