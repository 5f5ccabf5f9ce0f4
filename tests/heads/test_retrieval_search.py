"""Search in blocks, and ranks: ties, several right answers, equal contents."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.heads.retrieval import Embeddings
from multimodal.heads.retrieval_search import Ranks, nearest, rank_pairs


def of(rows: list[list[float]]) -> Embeddings:
    return Embeddings.of_items(torch.tensor(rows))


def numbered(count: int) -> Embeddings:
    """Return items whose one value is their number."""
    return of([[float(number)] for number in range(count)])


def looked_up(table: torch.Tensor):
    """Return a similarity that is read from a table, by the numbers of the items."""
    return lambda first, second: table[first.vectors[:, 0].long()][:, second.vectors[:, 0].long()]


def ranks_of(*cases: tuple[int, int, int]) -> Ranks:
    return Ranks(*torch.tensor(cases).T)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 7), st.integers(0, 1000))
def test_the_nearest_are_those_of_a_full_sort_whatever_the_blocks(count, k, block, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-2, 3, (count, 3), generator=generator).float()  # with many ties
    queries = Embeddings.of_items(torch.randint(-2, 3, (5, 3), generator=generator).float())
    found = nearest(queries, Embeddings.of_items(vectors), k, block=block)
    scores, order = (queries.vectors @ vectors.T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.places, order[:, :k]) and torch.equal(found.scores, scores[:, :k])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((of([[1.0]]), of([[1.0]]), 0), "k and block must be at least 1, got 0 and 1024"),
        ((of([[1.0]]), Embeddings.of_items(torch.zeros(0, 1))), "got 1 and 0"),
        ((of([[1.0]]), of([[1.0, 2.0]])), "queries have 1 values a vector, candidates 2"),
    ],
)
def test_a_search_that_finds_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest(*arguments)


def test_ranks_without_ties():
    table = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    ranks = rank_pairs(numbered(3), numbered(3), similarity=looked_up(table))
    assert ranks.expected.tolist() == [1, 2, 3]
    scores = ranks.scores()
    assert scores["median_rank"] == 2 and scores["recall_5"] == 1
    assert scores["recall_1"].item() == pytest.approx(1 / 3)
    assert scores["mean_reciprocal_rank"].item() == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_an_embedding_that_says_nothing_is_worth_chance():
    ranks = rank_pairs(of([[0.0]] * 9), of([[0.0]] * 9))
    assert ranks.expected.tolist() == [5.0] * 9
    assert ranks.recall(1).item() == pytest.approx(1 / 9) and ranks.recall(5).item() == pytest.approx(5 / 9)
    assert ranks.recall(9).item() == 1


@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.integers(1, 9))
def test_ties_are_the_mean_over_all_orders(above, wrong, right, k):
    firsts = [order.index(True) for order in itertools.permutations([False] * wrong + [True] * right)]
    ranks = ranks_of((above, wrong, right))
    assert ranks.expected.item() == pytest.approx(1 + above + sum(firsts) / len(firsts))
    assert ranks.recall(k).item() == pytest.approx(sum(above + first < k for first in firsts) / len(firsts), abs=1e-9)


def test_equal_answers_are_all_right_and_count_as_often_as_they_are_there():
    """Two pictures have caption 7; the third picture's caption stands three times behind another that is wrong for it."""
    contents = torch.tensor([[0, 7], [1, 7], [2, 8], [3, 9]])
    table = torch.tensor([[1.0, 1.0, 5.0, 0.0], [9.0, 9.0, 5.0, 0.0], [6.0, 6.0, 5.0, 4.0], [0.0, 0.0, 0.0, 1.0]])
    ranks = rank_pairs(numbered(4), numbered(4), contents, looked_up(table), block=2)
    assert ranks.above.tolist() == [1, 0, 2, 0] and ranks.right.tolist() == [2, 2, 1, 1] and ranks.wrong.tolist() == [0, 0, 0, 0]


def test_a_question_asked_twice_has_both_answers_right():
    contents = torch.tensor([[4, 0], [4, 1], [5, 2]])
    table = torch.tensor([[1.0, 9.0, 5.0], [1.0, 9.0, 5.0], [0.0, 0.0, 1.0]])
    ranks = rank_pairs(numbered(3), numbered(3), contents, looked_up(table))
    assert ranks.expected.tolist() == [1, 1, 1]


def test_embeddings_that_are_not_finite_are_no_hit():
    with pytest.raises(ValueError, match="not finite"):
        rank_pairs(of([[math.nan], [1.0]]), of([[1.0], [1.0]]))


def test_halves_of_pairs_are_refused():
    with pytest.raises(ValueError, match="got 2 first items, 1 second ones"):
        rank_pairs(of([[1.0], [1.0]]), of([[1.0]]))
