"""Pieces of a unigram vocabulary, chosen in the same way each time.

The trainer of Hugging Face's library sums over words in another order each time, and what the rounding leaves decides between pieces that
are equally good. Here words are taken in alphabetical order, and ties go by the alphabet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

LONGEST = 16
"""Characters of a piece."""
STRETCH = 20
"""Characters of a word that are cut at once, so that products of probabilities do not vanish."""
SEEDS, MOST_SEEDS = 8, 1_000_000
"""Pieces at the start for each that is wanted, and at most."""
HELD = 4 * MOST_SEEDS
"""Substrings that are counted at once: from then on the rarer half is forgotten now and then."""
KEPT = 0.7
"""Share of the pieces that a round keeps."""
ROUNDS = 2
"""How often pieces are counted anew before some are left out."""
FEWEST = 0.5
"""Expected count below which a piece is dropped; characters that stay have it."""


def choose_pieces(words: Mapping[str, int], size: int, characters: Iterable[str]) -> dict[str, float]:
    """Return pieces with the logarithms of their probabilities (unigram language model, https://arxiv.org/abs/1804.10959).

    Of many substrings those are left out without which the words are hardly less likely, three in ten at a time; in between, probabilities
    are estimated by how often each piece is expected in all cuts of the words (EM).

    Args:
        words: word -> how often it is there.
        size: pieces that are wanted; fewer are returned where words hold fewer substrings that occur twice.
        characters: pieces that stay in any case; all characters of the words must be among them.
    """
    needed, stretches = set(characters), _stretches(words)
    found = _seeds(stretches, min(SEEDS * size, MOST_SEEDS))
    counts = {**found, **{character: found.get(character, FEWEST) for character in sorted(needed)}}
    while True:
        for _ in range(ROUNDS):
            counts = _recount(counts, stretches, needed)
        if len(counts) <= size:
            return _scores(counts)
        counts = _pruned(counts, needed, max(size, int(KEPT * len(counts))))


def _stretches(words: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return words, long ones in parts, in alphabetical order."""
    parts: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(0, len(word), STRETCH):
            parts[word[start : start + STRETCH]] += times
    return sorted(parts.items())


def _seeds(stretches: list[tuple[str, int]], most: int) -> dict[str, float]:
    """Return the substrings that cover most text, with how often they occur, at least twice."""
    counts: Counter[str] = Counter()
    for word, times in stretches:
        for start in range(len(word)):
            for end in range(start + 1, min(start + LONGEST, len(word)) + 1):
                counts[word[start:end]] += times
        if len(counts) > HELD:
            counts = Counter(dict(_widest(counts, HELD // 2)))
    return {piece: float(count) for piece, count in _widest(counts, most) if count > 1}


def _widest(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1] * len(entry[0]), entry[0]))[:most]


def _scores(counts: Mapping[str, float]) -> dict[str, float]:
    total = math.log(math.fsum(counts.values()))
    return {piece: math.log(count) - total for piece, count in counts.items()}


def _recount(counts: Mapping[str, float], stretches: list[tuple[str, int]], needed: set[str]) -> dict[str, float]:
    """Return how often each piece is expected in the words; pieces that hardly are do not stay."""
    chances = {piece: math.exp(score) for piece, score in _scores(counts).items()}
    expected = dict.fromkeys(chances, 0.0)
    for word, times in stretches:
        _expect(word, times, chances, expected)
    return {
        piece: max(count, FEWEST) if piece in needed else count for piece, count in expected.items() if count >= FEWEST or piece in needed
    }


def _expect(word: str, times: int, chances: Mapping[str, float], expected: dict[str, float]) -> None:
    """Add the expected counts of the pieces of a word, over all its cuts by their probabilities."""
    edges = [
        (start, end, piece, chance)
        for start in range(len(word))
        for end in range(start + 1, min(start + LONGEST, len(word)) + 1)
        if (chance := chances.get(piece := word[start:end])) is not None
    ]
    before, after = [1.0] + [0.0] * len(word), [0.0] * len(word) + [1.0]
    for start, end, _, chance in edges:  # in the order of their starts: what leads there is summed
        before[end] += before[start] * chance
    for start, end, _, chance in reversed(edges):
        after[start] += after[end] * chance
    weight = times / before[-1]
    for start, end, piece, chance in edges:
        expected[piece] += weight * before[start] * chance * after[end]


def _pruned(counts: Mapping[str, float], needed: set[str], size: int) -> dict[str, float]:
    """Return the counts without the pieces that cost least: how often they are used times what their best cut into others is worse."""
    scores = _scores(counts)
    cost = {piece: counts[piece] * (score - _best_cut(piece, scores)) for piece, score in scores.items() if piece not in needed}
    kept = needed.union(sorted(cost, key=lambda piece: (-cost[piece], piece))[: max(size - len(needed), 0)])
    return {piece: count for piece, count in counts.items() if piece in kept}


def _best_cut(piece: str, scores: Mapping[str, float]) -> float:
    """Return the score of the likeliest cut of a piece into other pieces."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            if end - start < len(piece) and (score := scores.get(piece[start:end])) is not None:
                best[end] = max(best[end], best[start] + score)
    return best[-1]
