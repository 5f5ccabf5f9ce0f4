"""Positions."""

import pytest
import torch

from multimodal.nn import Encoder, LearnedPosition, RotaryPosition, SinCosPosition


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


def test_rotary_attention_depends_on_differences_of_positions_alone():
    torch.manual_seed(0)
    rotary = RotaryPosition(8, axes=2)
    q, k = torch.randn(2, 5, 3, 8)
    here = torch.randint(20, (5, 2))
    scores = [(rotary(q, rotary.angles(c)) * rotary(k, rotary.angles(c + 2))).sum(-1) for c in (here, here + 7)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)
    elsewhere = (rotary(q, rotary.angles(here)) * rotary(k, rotary.angles(here + 3))).sum(-1)
    assert not torch.allclose(scores[0], elsewhere, atol=1e-2)


def test_rotation_matches_complex_multiplication():
    rotary, x = RotaryPosition(8, axes=1), torch.randn(1, 1, 8)
    angles = 5 * 100.0 ** (-torch.arange(4) / 4)
    expected = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(4), angles)
    rotated = rotary(x, rotary.angles(torch.tensor([[5]])))
    torch.testing.assert_close(rotated, torch.cat([expected.real, expected.imag], -1))


def test_sequences_use_the_first_axis_beside_images():
    rotary = RotaryPosition(8, axes=2)
    sequence, image = rotary.angles(torch.tensor([[3]])), rotary.angles(torch.tensor([[3, 0]]))
    torch.testing.assert_close(sequence, image)
    with pytest.raises(ValueError, match="3 coordinates, the rotary position 2 axes"):
        rotary.angles(torch.zeros(1, 3))


def test_an_encoder_with_rotary_positions_tells_the_order_of_tokens():
    torch.manual_seed(0)
    encoder = Encoder(dim=16, depth=1, num_heads=2, rotary=RotaryPosition, class_token=True)
    tokens, sequence = torch.randn(4, 16), torch.zeros(4, dtype=torch.int64)
    forward = encoder(tokens, sequence, torch.arange(4)[:, None])
    backward = encoder(tokens, sequence, torch.tensor([3, 1, 2, 0])[:, None])
    assert not torch.allclose(forward.class_token, backward.class_token, atol=1e-5)
    with pytest.raises(ValueError, match="needs the coordinates"):
        encoder(tokens, sequence)
