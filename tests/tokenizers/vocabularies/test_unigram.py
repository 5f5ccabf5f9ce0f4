"""The pieces are those that explain the words best."""

import itertools
import math

import pytest
from tokenizers import Tokenizer, models

from multimodal.tokenizers.vocabularies import unigram

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3, "new": 4}


def cuts(word: str, pieces) -> list[list[str]]:
    if not word:
        return [[]]
    return [[word[:end], *rest] for end in range(1, len(word) + 1) if word[:end] in pieces for rest in cuts(word[end:], pieces)]


def test_expected_counts_are_those_of_all_cuts():
    chances = {"a": 0.3, "b": 0.2, "ab": 0.1, "ba": 0.25, "aba": 0.15}
    expected = dict.fromkeys(chances, 0.0)
    unigram._expect("abab", 3, chances, expected)
    likely = [(cut, math.prod(chances[piece] for piece in cut)) for cut in cuts("abab", chances)]
    total = sum(chance for _, chance in likely)
    for piece in chances:
        assert expected[piece] == pytest.approx(3 * sum(cut.count(piece) * chance for cut, chance in likely) / total)


def test_the_best_cut_leaves_the_piece_itself_out():
    scores = {"a": -1.0, "b": -2.0, "ab": -2.5, "aba": -0.1}
    assert unigram._best_cut("aba", scores) == pytest.approx(-3.5)
    assert unigram._best_cut("a", scores) == -math.inf


def test_the_likelihood_of_the_words_rises_from_count_to_count(monkeypatch):
    monkeypatch.setattr(unigram, "FEWEST", 1e-9)  # so that no piece is dropped
    stretches = unigram._stretches(WORDS)
    characters = set("".join(WORDS))
    counts = {**unigram._seeds(stretches, 100), **dict.fromkeys(characters, 1.0)}
    found = []
    for _ in range(5):
        scores = unigram._scores(counts)
        found.append(
            sum(
                times * math.log(sum(math.exp(sum(scores[piece] for piece in cut)) for cut in cuts(word, scores)))
                for word, times in WORDS.items()
            )
        )
        counts = unigram._recount(counts, stretches, characters)
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(found)) and found[-1] > found[0]


def test_as_many_pieces_are_left_as_are_wanted_with_all_characters():
    characters = set("".join(WORDS))
    pieces = unigram.choose_pieces(WORDS, len(characters) + 3, characters)
    assert len(pieces) <= len(characters) + 3 and characters <= set(pieces)
    assert "est" in pieces or "west" in pieces or "newest" in pieces
    assert all(score < 0 for score in pieces.values())
    cut = Tokenizer(models.Unigram([("", 0.0), *pieces.items()], 0, False)).encode("newestlow").tokens
    assert "".join(cut) == "newestlow" and len(cut) < 6


def test_long_words_and_rare_characters_do_not_vanish():
    word = "".join(chr(0x4E00 + number) for number in range(200))
    pieces = unigram.choose_pieces({word: 1, "a": 10**12}, 300, {*word, "a"})
    assert set(pieces) == {*word, "a"} and all(math.isfinite(score) for score in pieces.values())


def test_the_order_of_words_does_not_matter(monkeypatch):
    monkeypatch.setattr(unigram, "HELD", 20)  # so that substrings are forgotten in between
    characters = set("".join(WORDS))
    assert unigram.choose_pieces(WORDS, 20, characters) == unigram.choose_pieces(dict(reversed(WORDS.items())), 20, sorted(characters))
