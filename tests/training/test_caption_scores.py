"""Scores of captions by hand, and over processes."""

import math

import pytest
import torch

from multimodal.training.caption_scores import CaptionScores, bleu, cider, rouge_l, words_of

TRUE = ["the seven goes up", "a two moves down and left", "look the zero slides up"]


def test_words_are_compared_without_case_and_punctuation():
    assert words_of("Now, let's GO - up!") == ["now", "let's", "go", "up"]
    assert bleu(["The seven, goes up!"], ["the seven goes up"]) == pytest.approx(1.0)


def test_bleu_is_that_of_the_whole_split():
    guesses = ["the seven goes up", "a two moves up and left"]
    pairs = {1: (9, 10), 2: (6, 8), 3: (3, 6), 4: (1, 4)}  # n-grams that are right, of all, in both captions together
    expected = math.exp(sum(math.log(right / total) for right, total in pairs.values()) / 4)
    assert bleu(guesses, TRUE[:2]) == pytest.approx(expected, abs=1e-6)
    short = bleu(["the seven goes up"], ["the seven goes up and left"])
    assert short == pytest.approx(math.exp(1 - 6 / 4), abs=1e-6), "all is right, but it is too short"


def test_rouge_is_by_the_longest_common_subsequence():
    precision, recall = 3 / 4, 3 / 5  # "the ... goes up" of four and of five words
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert rouge_l("the two goes up", "the big seven goes up") == pytest.approx(expected)
    assert rouge_l("", "a") == 0 and rouge_l("b", "a") == 0 and rouge_l(TRUE[0], TRUE[0]) == pytest.approx(1.0)


def test_cider_of_a_case_by_hand():
    truths = ["a b", "a c"]
    guesses = ["a b", "a b"]
    # of "a" both have one: weight log 2/2 = 0. "b": log 2/1. For single words the first pair is equal: 1; of the second guess "b" is not
    # in the truth "a c": 0. For pairs: equal, 1; and different, 0. Three and four words: none, 0.
    assert cider(guesses, truths) == pytest.approx(10 * ((1 + 1) / 4 + 0) / 2)
    assert cider(["b", "c"], truths) == pytest.approx(10 * math.exp(-1 / 72) * 1 / 4), "one word less costs a little"
    assert cider(["b b", "c"], truths) == pytest.approx(10 * ((0.5 + 0) / 4 + math.exp(-1 / 72) / 4) / 2), "saying it twice is no better"


def test_a_guess_that_says_the_truth_has_the_most_and_one_caption_says_nothing():
    assert cider(TRUE, TRUE) == pytest.approx(10.0)
    assert cider(TRUE[::-1], TRUE) < 4 and cider(TRUE[:1], TRUE[:1]) == 0 and cider([], []) == 0


def test_scores_are_of_all_batches_and_processes():
    whole, first, second = CaptionScores(), CaptionScores(), CaptionScores()
    guesses = ["the seven goes down", "a two \u00e4nd\nleft", "look up"]
    whole.update(torch.tensor(6.0), torch.tensor(4), guesses, TRUE)
    first.update(torch.tensor(2.0), torch.tensor(1), guesses[:1], TRUE[:1])
    second.update(torch.tensor(4.0), torch.tensor(3), guesses[1:], TRUE[1:])
    first.texts = torch.cat([*first.texts, *second.texts])  # as torchmetrics leaves it after an exchange
    first.loss, first.count = first.loss + second.loss, first.count + second.count
    expected = whole.compute()
    assert expected.keys() == {"loss", "bleu_4", "rouge_l", "cider", "captions"} and float(expected["loss"]) == 1.5
    assert {name: float(value) for name, value in first.compute().items()} == pytest.approx({n: float(v) for n, v in expected.items()})
    whole.reset()
    assert whole.compute() == {}
    whole.update(torch.tensor(6.0), torch.tensor(4))
    assert {name: float(value) for name, value in whole.compute().items()} == {"loss": 1.5}
