"""``multimodal tokenizers train``: a vocabulary of one's own texts."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multimodal.tokenizers.vocabularies.measure import Figures

KINDS = ("wordpiece", "bpe", "unigram")
SUMMARY = "train a vocabulary on your own texts (WordPiece, BPE, unigram)"
DESCRIPTION = "Train a vocabulary on texts and write it as DIR/tokenizer.json, which FileTokenizer and transformers read."
EPILOG = """\
kinds:
  wordpiece   as BERT has it: words and punctuation, then pieces of words; a word with a character that is not in the vocabulary is [UNK],
              white space is lost, accents stay
  bpe         pairs of bytes, as GPT-2 has them: every text can be written
  unigram     pieces with probabilities, as T5 and XLM-R have them; bytes for characters that are not in the vocabulary. Takes longest

All have [PAD], [UNK], [CLS], [SEP] and [MASK] as ids 0 to 4, put [CLS] before a text and [SEP] after it, and read texts in Unicode's
composed form (NFC). The same texts give the same file. Lines are read one by one, several times: the distinct words must fit in
memory, not the texts.

examples:
  multimodal tokenizers train data/shards --kind bpe --vocab-size 8000 --to data/vocabulary
  multimodal tokenizers train books/ more.txt --kind wordpiece --lower-case --to data/vocabulary
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE", help="text files, folders of *.txt, or folders of shards with fields txt, in UTF-8"
    )
    parser.add_argument("--kind", choices=KINDS, required=True, help="of the vocabulary, see below")
    parser.add_argument("--vocab-size", type=int, default=30_000, metavar="N", help="ids, special ones counted (default: %(default)s)")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for the vocabulary; made if it is not there")
    parser.add_argument("--lower-case", action="store_true", help="read all texts in lower case")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of shards (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a vocabulary in DIR")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code.

    Raises:
        ValueError: a setting, a source or a text is refused, or DIR holds a vocabulary already.
    """
    from multimodal.tokenizers.vocabularies.train import Settings

    settings = Settings(options.kind, options.vocab_size, options.lower_case)
    there = [name for name in ("tokenizer.json", "config.json") if (options.to / name).exists()]
    if there and not options.overwrite:
        raise ValueError(f"{options.to} holds {there[0]} already: give another folder, or --overwrite.")
    if options.to.exists() and not options.to.is_dir():
        raise ValueError(f"{options.to} is a file: give a folder.")

    from multimodal.tokenizers.vocabularies.measure import measure
    from multimodal.tokenizers.vocabularies.texts import Texts
    from multimodal.tokenizers.vocabularies.train import train_vocabulary

    started = time.perf_counter()
    texts = Texts(options.source, options.split)
    tokenizer = train_vocabulary(texts, settings)
    seconds = time.perf_counter() - started
    found = measure(tokenizer, texts)
    _save(tokenizer.to_str(), options.to)
    _report(found, seconds, options)
    return 0


def _save(content: str, folder: Path) -> None:
    """Write the file, and the config that ``load_tokenizer`` reads."""
    from multimodal.atomic import atomic_file
    from multimodal.tokenizers.text import FileTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "tokenizer.json") as file:
        file.write(content.encode())
    FileTokenizer(str(folder), special_tokens=True).save_pretrained(folder)


def _report(found: Figures, seconds: float, options: argparse.Namespace) -> None:
    print(f"{found.vocab_size:,} ids ({options.kind}) in {options.to}, trained in {seconds:.0f} s", end="")
    print("" if found.vocab_size == options.vocab_size else f"; the texts hold no more, {options.vocab_size:,} were wanted")
    said = f"{found.tokens / found.words:.2f} tokens a word" if found.words else "no words"
    print(f"on these texts, {found.characters:,} characters: {said}, {found.characters / found.tokens:.2f} characters a token,", end=" ")
    print(f"{found.unknown / found.tokens:.4%} unknown")
