"""Biases of positions: their published numbers, and loops over all pairs of places."""

import itertools
import math

import pytest
import torch

from multimodal.nn import Alibi, BucketedBias, Encoder, PositionBias, RelativeBias2d
from tests.nn.option_sets import GRID, WINDOW_BIAS, places

FULL = torch.cartesian_prod(torch.arange(2), torch.arange(3))


def with_special(coordinates: torch.Tensor, count: int) -> torch.Tensor:
    return torch.cat([torch.full((count, coordinates.shape[1]), -1), coordinates])


def filled(bias: PositionBias) -> PositionBias:
    torch.manual_seed(0)
    for parameter in bias.parameters():
        parameter.data.normal_()
    return bias


def test_the_rows_of_a_2_by_3_window_are_those_of_beit():
    bias = RelativeBias2d(4, window=(2, 3))
    assert bias.table.shape == (18, 4)
    index = bias.index(with_special(FULL, 1)[None])[0].tolist()
    assert index[0] == [17, 15, 15, 15, 15, 15, 15]
    assert [row[0] for row in index[1:]] == [16] * 6
    assert index[1][1:] == [7, 6, 5, 2, 1, 0]
    assert len({tuple(row[1:]) for row in index[1:]}) == 6
    assert RelativeBias2d(12, window=(14, 14)).table.shape == (732, 12)
    assert (bias.table == 0).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_relative_bias_of_every_pair_with_a_class_token_and_registers(count):
    bias = filled(RelativeBias2d(2, window=(2, 3)))
    given = with_special(FULL, count)
    differences = list(itertools.product((-1, 0, 1), (-2, -1, 0, 1, 2)))  # rows of the table, by difference of rows, then of columns
    made = bias(given[None])[0]
    for (i, query), (j, key) in itertools.product(enumerate(given.tolist()), repeat=2):
        if i < count or j < count:
            row = 15 if j >= count else 16 if i >= count else 17
        else:
            row = differences.index((query[0] - key[0], query[1] - key[1]))
        assert torch.equal(made[:, i, j], bias.table[row]), (query, key)


def test_sequences_that_show_other_parts_of_an_image_have_biases_of_their_own():
    bias = filled(RelativeBias2d(2, window=GRID))
    full = torch.cartesian_prod(*(torch.arange(extent) for extent in GRID))
    whole = bias(full[None])[0]
    torch.manual_seed(0)
    parts = torch.stack([places(6) for _ in range(3)])
    for part, made in zip(parts, bias(parts), strict=True):
        number = part[:, 0] * GRID[1] + part[:, 1]
        assert torch.equal(made, whole[:, number][:, :, number])
    assert not torch.equal(bias(parts)[0], bias(parts)[1])


@pytest.mark.parametrize(
    "coordinates, message",
    [
        (
            torch.tensor([[0, 0], [5, 1]]),
            r"tokens lie on a grid of \(6, 2\), the relative bias has a window of \(5, 7\): set window, or resize",
        ),
        (torch.tensor([[0], [1]]), "2 whole coordinates .*, got 1 of torch.int64"),
        (torch.tensor([[0.0, 1.0], [1.5, 0.0]]), "2 whole coordinates .*, got 2 of torch.float32"),
        (None, "an encoder with a RelativeBias2d needs the coordinates"),
    ],
)
@pytest.mark.parametrize("share_bias", [True, False])
def test_places_that_the_window_does_not_have_are_refused(coordinates, message, share_bias):
    encoder = Encoder(dim=8, depth=2, num_heads=2, bias=WINDOW_BIAS, share_bias=share_bias)
    with pytest.raises(ValueError, match=message):
        encoder(torch.randn(2, 8), torch.zeros(2, dtype=torch.int64), coordinates)
    with pytest.raises(ValueError, match=message):
        encoder.forward_dense(torch.randn(1, 2, 8), coordinates)


@pytest.mark.parametrize("window", [(3,), (0, 3)])
def test_a_window_that_is_no_grid_is_refused(window):
    with pytest.raises(ValueError, match="window must be rows and columns"):
        RelativeBias2d(2, window=window)


def test_buckets_are_those_of_beats():
    published = {0: 0, 1: 161, -1: 1, 79: 239, 80: 240, 81: 240, -79: 79, -80: 80, 100: 247, 200: 271, 400: 295, 799: 319, 800: 319}
    published |= {5000: 319, -800: 159, -5000: 159}
    assert BucketedBias(2).bucket(torch.tensor(list(published))).tolist() == list(published.values())


@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (320, 800), (4, 3)])
def test_buckets_grow_as_the_formula_says(num_buckets, max_distance):
    difference = torch.arange(-2 * max_distance, 2 * max_distance + 1)
    half, exact = num_buckets // 2, num_buckets // 4
    for d, bucket in zip(difference.tolist(), BucketedBias(2, num_buckets, max_distance).bucket(difference).tolist(), strict=True):
        assert (bucket >= half) == (d > 0)
        expected = abs(d)
        if expected >= exact:
            expected = min(exact + math.log(expected / exact) / math.log(max_distance / exact) * (half - exact), half - 1)
        assert expected - 1 - 1e-4 < bucket % half <= expected + 1e-4, d  # the whole part; float32 at the edges


def test_buckets_equal_those_of_t5():
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    difference = torch.arange(-2000, 2001)
    for num_buckets, max_distance in ((32, 128), (320, 800)):
        theirs = t5.T5Attention._relative_position_bucket(difference, True, num_buckets, max_distance)
        assert torch.equal(BucketedBias(2, num_buckets, max_distance).bucket(difference), theirs)


def test_a_bucketed_bias_depends_on_the_order_in_the_sequence():
    bias = filled(BucketedBias(2, num_buckets=8, max_distance=9))
    made = bias(torch.zeros(3, 12, 2))
    assert made.shape == (1, 2, 12, 12)
    for i, j in itertools.product(range(12), repeat=2):
        assert torch.equal(made[0, :, i, j], bias.table[bias.bucket(torch.tensor(j - i))])


@pytest.mark.parametrize(
    "settings, message", [((6, 9), "multiple of 4, got 6"), ((0, 9), "multiple of 4, got 0"), ((32, 8), "quarter .* got 8")]
)
def test_numbers_that_leave_no_buckets_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BucketedBias(2, *settings)


def test_alibi_has_the_published_slopes():
    assert Alibi(8).slopes.tolist() == pytest.approx([2.0**-n for n in range(1, 9)])
    twelve = [2.0**-n for n in range(1, 9)] + [2.0**-n for n in (0.5, 1.5, 2.5, 3.5)]
    assert Alibi(12).slopes.tolist() == pytest.approx(twelve)
    assert Alibi(1).slopes.tolist() == pytest.approx([2.0**-8])


@pytest.mark.parametrize("learned", [False, True])
def test_alibi_is_minus_slope_times_distance(learned):
    bias = Alibi(2, learned_scale=learned)
    scale = [1.0, 1.0]
    if learned:
        assert bias.scale.tolist() == [1.0, 1.0]
        scale, bias.scale.data = [3.0, 0.0], torch.tensor([3.0, -2.0])  # a scale is never negative: far tokens would be preferred
    given = torch.tensor([[[-1, -1], [0, 0], [1, 4], [2, 0]], [[-1, -1], [0.5, 0.0], [0.0, 0.0], [3.0, 1.5]]])
    made = bias(given)
    for p, i, j, h in itertools.product(range(2), range(4), range(4), range(2)):
        distance = 0 if 0 in (i, j) else sum(abs(a - b) for a, b in zip(given[p, i].tolist(), given[p, j].tolist(), strict=True))
        assert made[p, h, i, j].item() == pytest.approx(-[2.0**-4, 2.0**-8][h] * scale[h] * distance)
