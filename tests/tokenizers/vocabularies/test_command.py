"""The command leaves a vocabulary, says how it fits, and refuses mistakes in one line."""

import subprocess
import sys

import pytest

from multimodal.cli import main
from multimodal.tokenizers.pretrained import load_tokenizer

TEXT = "the lower the newer, the wider the slower\n" * 4


@pytest.fixture
def books(tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books/a.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "books"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_it_leaves_a_tokenizer_that_can_be_loaded_and_says_how_it_fits(books, tmp_path, capsys, kind):
    to = tmp_path / "made/vocabulary"
    assert main(["tokenizers", "train", str(books), "--kind", kind, "--vocab-size", "600", "--to", str(to)]) == 0
    tokenizer = load_tokenizer(str(to))
    assert (tokenizer.start_ids, tokenizer.end_ids) == ((2,), (3,))
    said = capsys.readouterr().out
    assert f"{tokenizer.vocab_sizes[0]:,} ids ({kind}) in {to}" in said and "the texts hold no more, 600 were wanted" in said
    tokens = len(tokenizer.encode_text(TEXT)) if kind != "bpe" else 4 * len(tokenizer.encode_text(TEXT.splitlines(keepends=True)[0]))
    assert (
        f"{len(TEXT):,} characters: {tokens / 32:.2f} tokens a word, {len(TEXT) / tokens:.2f} characters a token, 0.0000% unknown" in said
    )


def test_another_vocabulary_is_only_replaced_when_asked(books, tmp_path, capsys):
    to = tmp_path / "vocabulary"
    command = ["tokenizers", "train", str(books), "--kind", "wordpiece", "--to", str(to)]
    assert main(command) == 0
    before = (to / "tokenizer.json").read_bytes()
    assert main([*command, "--lower-case"]) == 2
    assert "holds tokenizer.json already" in capsys.readouterr().err and (to / "tokenizer.json").read_bytes() == before
    assert main([*command, "--lower-case", "--overwrite"]) == 0
    assert (to / "tokenizer.json").read_bytes() != before
    assert load_tokenizer(str(to)).decode(load_tokenizer(str(to)).encode_text("THE")) == "the"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--vocab-size", "200"], "vocab_size of bpe must be at least 262, got 200"),
        (["nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_one_line(books, tmp_path, capsys, more, said):
    assert main(["tokenizers", "train", "--kind", "bpe", "--to", str(tmp_path / "to"), *more, str(books)]) == 2
    found = capsys.readouterr().err
    assert said in found and found.startswith("error: ") and found.count("\n") == 1
    assert not (tmp_path / "to").exists()


def test_help_needs_no_heavy_package():
    code = (
        "import sys\nfrom multimodal.cli import main\ntry:\n    main(['tokenizers', 'train', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'tokenizers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--vocab-size" in found and found.splitlines()[-1] == "[]"
