"""Positions."""

import itertools
import math

import pytest
import torch

from multimodal.nn import (
    ConvPosition,
    Encoder,
    InterleavedSinCosPosition,
    LearnedPosition,
    Packing,
    RotaryPosition,
    SinCosPosition,
    SinCosPosition2d,
    SinCosPosition3d,
)
from tests.nn.naive import gelu


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


def test_each_axis_of_time_row_and_column_has_a_third_of_the_width():
    place = torch.tensor([[2, 5, 11]])
    made = SinCosPosition3d(12)(place)
    torch.testing.assert_close(made, torch.cat([SinCosPosition(4)(place[:, axis, None]) for axis in range(3)], 1))
    cut = SinCosPosition3d(16)(place)  # three times 6, less the last two
    torch.testing.assert_close(cut, torch.cat([SinCosPosition(6)(place[:, axis, None]) for axis in range(3)], 1)[:, :16])


def test_the_column_comes_first_in_mae():
    """MAE's ``get_2d_sincos_pos_embed``: of a grid of rows, the first half of the width is made of the column."""
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(5))
    frequencies = [10_000 ** (-i / 4) for i in range(4)]
    expected = [
        [turn(place * f) for place in (column, row) for turn in (math.sin, math.cos) for f in frequencies] for row, column in grid.tolist()
    ]
    torch.testing.assert_close(SinCosPosition2d(16, column_first=True)(grid), torch.tensor(expected))
    torch.testing.assert_close(SinCosPosition2d(16)(grid.flip(1)), torch.tensor(expected))


def test_sines_and_cosines_equal_those_of_transformers():
    mae = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
    theirs = mae.build_2d_sinusoidal_position_embedding(7, 9, 32)
    grid = torch.cartesian_prod(torch.arange(7), torch.arange(9))
    torch.testing.assert_close(SinCosPosition2d(32)(grid), theirs, atol=2e-6, rtol=0)
    column_first = torch.cat(theirs.chunk(2, 1)[::-1], 1)  # as transformers fills MAE's table
    torch.testing.assert_close(SinCosPosition2d(32, column_first=True)(grid), column_first, atol=2e-6, rtol=0)


def test_sines_and_cosines_by_turns_of_a_place_s_number():
    """VideoMAE: even channels are sines, odd ones cosines, of the number of a tube in row-major order."""
    position = InterleavedSinCosPosition(6, size=(2, 3, 4))
    for time, row, column in ((0, 0, 0), (1, 0, 3), (1, 2, 3)):
        number = (time * 3 + row) * 4 + column
        expected = [(math.cos if i % 2 else math.sin)(number / 10_000 ** (2 * (i // 2) / 6)) for i in range(6)]
        torch.testing.assert_close(position(torch.tensor([[time, row, column]])), torch.tensor([expected]))
    videomae = pytest.importorskip("transformers.models.videomae.modeling_videomae")
    theirs = videomae.get_sinusoid_encoding_table(1568, 48)[0]
    grid = torch.cartesian_prod(torch.arange(8), torch.arange(14), torch.arange(14))
    torch.testing.assert_close(InterleavedSinCosPosition(48, (8, 14, 14))(grid), theirs, atol=1e-6, rtol=0)


def test_an_offset_leaves_the_first_rows_unused():
    """BEiT-3: positions begin at 2."""
    position = LearnedPosition(4, size=(5,), offset=2)
    assert position.table.shape == (7, 4)
    torch.testing.assert_close(position(torch.tensor([[0], [4]])), position.table[[2, 6]])


def test_a_fixed_table_holds_sines_and_cosines_and_is_not_trained():
    position = LearnedPosition(8, size=(2, 3), trainable=False)
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    torch.testing.assert_close(position(grid), SinCosPosition2d(8)(grid))
    assert not position.table.requires_grad and "table" in position.state_dict()
    row = LearnedPosition(8, size=(5,), offset=1, trainable=False)
    torch.testing.assert_close(row(torch.tensor([[3]])), SinCosPosition(8)(torch.tensor([[3]])))


@pytest.mark.parametrize("position", [LearnedPosition(4, (2, 3)), InterleavedSinCosPosition(4, (2, 3))])
@pytest.mark.parametrize(
    "places, message",
    [
        (torch.tensor([[1, 2], [0, 3]]), r"a token lies at \(0, 3\), outside of the positions' size \(2, 3\)"),
        (torch.tensor([[-1, 0]]), r"a token lies at \(-1, 0\)"),
        (torch.tensor([[1], [2]]), "tokens have 1 coordinates, the positions 2 axes"),
        (torch.tensor([[0.5, 1.0]]), "whole coordinates, got torch.float32"),
    ],
)
def test_a_place_that_a_table_does_not_have_is_named(position, places, message):
    with pytest.raises(ValueError, match=message):
        position(places)


def test_tokens_must_have_as_many_coordinates_as_there_are_axes():
    with pytest.raises(ValueError, match="tokens have 1 coordinates, the positions 2 axes"):
        SinCosPosition2d(8)(torch.zeros(3, 1))


def test_no_tokens_have_no_positions():
    for position in (SinCosPosition2d(8), LearnedPosition(8, (2, 3)), InterleavedSinCosPosition(8, (2, 3))):
        assert position(torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 8)


@pytest.mark.parametrize("library, period", [("llama", 10_000.0), ("modernbert", 160_000.0)])
def test_one_axis_is_turned_as_in_transformers(library, period):
    theirs = pytest.importorskip(f"transformers.models.{library}.modeling_{library}")
    places = torch.tensor([0, 3, 511, 8000])
    query, key = torch.randn(2, 1, 4, 2, 8)  # sequences, tokens, heads, width
    angles = places[:, None] / period ** (torch.arange(0, 8, 2) / 8)
    both = torch.cat([angles, angles], 1)[None]
    expected = theirs.apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), both.cos(), both.sin())
    rotary = RotaryPosition(8, axes=1, max_period=period)
    for ours, its in zip((query, key), expected, strict=True):
        torch.testing.assert_close(rotary(ours[0], rotary.angles(places[:, None])), its[0].transpose(0, 1), atol=2e-3, rtol=0)
        near = rotary(ours[0, :2], rotary.angles(places[:2, None]))  # far angles differ by float32's rounding
        torch.testing.assert_close(near, its[0].transpose(0, 1)[:2], atol=1e-5, rtol=1e-5)


def test_rotation_keeps_its_frequencies_in_float32():
    exact, cast = RotaryPosition(8, axes=1), RotaryPosition(8, axes=1).to(torch.bfloat16)
    assert torch.equal(cast.frequencies, exact.frequencies)
    places = torch.tensor([[1000]])
    torch.testing.assert_close(cast(torch.ones(1, 1, 8), cast.angles(places)), exact(torch.ones(1, 1, 8), exact.angles(places)))


def test_special_tokens_are_not_turned():
    rotary, x = RotaryPosition(8, axes=2), torch.randn(1, 2, 8)
    assert torch.equal(rotary(x, rotary.angles(torch.tensor([[-1, -1]]))), x)


@pytest.mark.parametrize("kernel_size", [3, 4])
def test_convolutional_positions_are_a_grouped_convolution_of_each_sequence(kernel_size):
    torch.manual_seed(0)
    position = ConvPosition(4, kernel_size, groups=2).double()
    for parameter in position.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    x, lengths = torch.randn(8, 4, dtype=torch.float64), [5, 1, 2]
    packing = Packing.from_sequence(torch.repeat_interleave(torch.tensor(lengths)))
    made = packing.unpack(position(packing.pack(x), packing))
    weight = torch.empty_like(position.direction)
    for k in range(kernel_size):
        matrix = position.direction[:, :, k]
        weight[:, :, k] = position.gain[0, 0, k] * matrix / matrix.square().sum().sqrt()
    first = 0
    for length in lengths:
        for token, out in itertools.product(range(length), range(4)):
            total, group = position.bias[out], out // 2
            for k, channel in itertools.product(range(kernel_size), range(2)):
                seen = token + k - kernel_size // 2
                if 0 <= seen < length:
                    total = total + weight[out, channel, k] * x[first + seen, 2 * group + channel]
            torch.testing.assert_close(made[first + token, out], x[first + token, out] + gelu(total))
        first += length
    fresh = ConvPosition(4, kernel_size, groups=2)
    torch.testing.assert_close(fresh.direction * fresh.gain / fresh.direction.norm(dim=(0, 1), keepdim=True), fresh.direction)


def test_convolutional_positions_need_a_width_that_fits():
    with pytest.raises(ValueError, match="multiple of groups, got dim 10 and groups 4"):
        ConvPosition(10, groups=4)
