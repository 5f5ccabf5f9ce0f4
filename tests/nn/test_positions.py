"""Positions."""

import pytest
import torch

from multimodal.nn import LearnedPosition, SinCosPosition


def test_sin_cos_depends_on_its_axis_alone():
    position = SinCosPosition(16, axes=2)
    vectors = position(torch.tensor([[0, 0], [0, 5], [3, 5]]))
    assert vectors.shape == (3, 16)
    torch.testing.assert_close(vectors[0, :8], vectors[1, :8])  # same row
    torch.testing.assert_close(vectors[1, 8:], vectors[2, 8:])  # same column


def test_sin_cos_matches_the_formula():
    vectors = SinCosPosition(8)(torch.tensor([[3]]))
    frequencies = 10_000 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(vectors[0], torch.cat([(3 * frequencies).sin(), (3 * frequencies).cos()]))


def test_learned_positions_are_in_row_major_order():
    position = LearnedPosition(4, size=(2, 3))
    torch.testing.assert_close(position(torch.tensor([[1, 2], [0, 1]])), position.table[[5, 1]])


def test_width_must_fit_the_axes():
    with pytest.raises(ValueError, match="multiple of 2 \\* axes"):
        SinCosPosition(10, axes=2)
