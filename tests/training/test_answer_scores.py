"""Exact match and F1 of answers: SQuAD's cases by hand, and means over questions."""

import pytest
import torch

from multimodal.training.answer_scores import AnswerScores, exact_match, normalized, overlap_f1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The  Notes.", "notes"),
        ("an Apple, a pear", "apple pear"),
        ("A.D.", "ad"),
        ("theatre", "theatre"),
        ("U.S.A", "usa"),
        ("the-end", "theend"),
        ("«Naïve»", "«naïve»"),
        ("a", ""),
    ],
)
def test_answers_are_normalised_as_by_squad(answer, expected):
    assert normalized(answer) == expected


@pytest.mark.parametrize(
    ("guess", "truth", "f1"),
    [
        ("the notes of Ada", "Notes", 0.5),  # one of three words, and the only true one
        ("ada ada", "Ada", 2 / 3),
        ("Ada", "Ada Ada", 2 / 3),
        ("Turin", "Milan", 0.0),
        ("", "Milan", 0.0),
        ("", "", 1.0),
        ("the", "", 1.0),
    ],
)
def test_words_in_common_are_counted_as_often_as_in_both(guess, truth, f1):
    assert overlap_f1(guess, truth) == pytest.approx(f1) == pytest.approx(overlap_f1(truth, guess))


def test_the_best_of_several_answers_counts_and_silence_is_right_where_there_is_none():
    scores = AnswerScores()
    scores.update(torch.tensor(6.0), 4)
    scores.update_answer("the Notes", ["Ada", "notes"])
    scores.update_answer("of Ada", ["Ada", "nobody"])
    scores.update_answer("", [])
    scores.update_answer("Ada", ["the"])  # which normalises to nothing: there is no answer
    found = {name: value.item() for name, value in scores.compute().items()}
    assert exact_match("the Notes", "notes") == 1
    assert found == pytest.approx(
        {
            "loss": 1.5,
            "exact_match": 0.5,
            "f1": (1 + 2 / 3 + 1) / 4,
            "questions": 4,
            "f1_answerable": (1 + 2 / 3) / 2,
            "accuracy_unanswerable": 0.5,
        }
    )
