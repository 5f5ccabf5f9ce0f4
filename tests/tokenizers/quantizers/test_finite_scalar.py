"""Finite scalar quantization: ids are digits, every id can be reached, gradients are those of the bound."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.quantizers import FiniteScalarQuantizer

PAPER = [((8, 6, 5), 240), ((8, 5, 5, 5), 1000), ((7, 5, 5, 5, 5), 4375), ((8, 8, 8, 6, 5), 15360), ((8, 8, 8, 5, 5, 5), 64000)]
LEVELS = st.lists(st.integers(3, 12), min_size=1, max_size=5).filter(lambda levels: math.prod(levels) <= 5000)


def drawn(count: int, dim: int, scale: float = 1.5, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("levels", "codes"), PAPER)
def test_a_vocabulary_is_the_product_of_the_levels(levels, codes):
    assert FiniteScalarQuantizer(16, levels).vocab_sizes == (codes,)


def test_the_first_coordinate_is_the_lowest_digit():
    quantizer = FiniteScalarQuantizer(3, (3, 5, 4))
    low, high = torch.tensor([[-9.0, -9.0, -9.0]]), torch.tensor([[9.0, 9.0, 9.0]])
    assert quantizer.encode(low).tolist() == [0] and quantizer.encode(high).tolist() == [59]
    assert quantizer.encode(torch.tensor([[9.0, -9.0, -9.0], [-9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]])).tolist() == [2, 4 * 3, 3 * 15]


def test_values_of_levels_are_even_steps_with_0_among_them():
    quantizer = FiniteScalarQuantizer(2, (4, 5))
    points = quantizer.points(torch.cartesian_prod(torch.arange(4), torch.arange(5)))
    assert points[:, 0].unique().tolist() == [-1.0, -0.5, 0.0, 0.5]
    assert points[:, 1].unique().tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert quantizer.lookup(quantizer.encode(torch.zeros(1, 2))).tolist() == [[0.0, 0.0]]


@settings(max_examples=40, deadline=None)
@given(LEVELS)
def test_every_id_is_reached_from_the_middle_of_its_cell(levels):
    quantizer = FiniteScalarQuantizer(len(levels), levels)
    ids = torch.arange(math.prod(levels))
    steps = (quantizer.lookup(ids) * quantizer.middle + quantizer.offset) / quantizer.reach
    assert torch.equal(quantizer.encode(torch.atanh(steps.clamp(-1 + 1e-6, 1 - 1e-6)) - quantizer.shift), ids)


@settings(max_examples=40, deadline=None)
@given(LEVELS, st.integers(0, 99))
def test_ids_stand_for_what_was_quantized(levels, seed):
    torch.manual_seed(seed)
    quantizer, vectors = FiniteScalarQuantizer(8, levels), drawn(50, 8, 3.0, seed)
    quantized = quantizer.quantize(vectors)
    assert torch.equal(quantized.ids, quantizer.encode(vectors))
    assert torch.equal(quantized.vectors, quantizer.lookup(quantized.ids))
    assert int(quantized.ids.min()) >= 0 and int(quantized.ids.max()) < math.prod(levels)


def test_the_most_levels_stay_within_their_range():
    quantizer = FiniteScalarQuantizer(1, (1000,))
    ids = quantizer.encode(torch.linspace(-30, 30, 20001)[:, None])
    assert ids[0] == 0 and ids[-1] == 999 and bool((ids.diff() >= 0).all())


def test_gradients_are_those_of_the_bound():
    quantizer, vectors = FiniteScalarQuantizer(2, (5, 8)), drawn(20, 2).requires_grad_()
    quantizer.quantize(vectors).vectors.sum().backward()
    slope = 1 - torch.tanh(vectors.detach() + quantizer.shift) ** 2
    torch.testing.assert_close(vectors.grad, slope * quantizer.reach / quantizer.middle)


def test_every_parameter_learns_and_there_is_no_loss():
    quantizer = FiniteScalarQuantizer(8, (5, 5))
    quantized = quantizer.quantize(drawn(20, 8))
    quantized.vectors.square().sum().backward()
    assert quantized.loss == 0 and all(parameter.grad.abs().sum() > 0 for parameter in quantizer.parameters())


def test_autocast_and_training_change_no_id():
    torch.manual_seed(0)
    quantizer, vectors = FiniteScalarQuantizer(16), drawn(500, 16)
    exact, before = quantizer.encode(vectors), {name: x.clone() for name, x in quantizer.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(vectors), exact)
        quantized = quantizer.train().quantize(vectors)
        looked_up = quantizer.lookup(exact)
    assert torch.equal(quantized.ids, exact) and quantized.vectors.dtype == looked_up.dtype == torch.float32
    assert torch.equal(quantizer.lookup(exact), looked_up)
    assert all(torch.equal(x, before[name]) for name, x in quantizer.state_dict().items())


def test_ids_have_any_shape():
    quantizer = FiniteScalarQuantizer(6, (3, 3))
    ids = torch.randint(9, (2, 3, 4))
    assert quantizer.lookup(ids).shape == (2, 3, 4, 6)
    assert torch.equal(quantizer.lookup(ids).flatten(0, 2), quantizer.lookup(ids.flatten()))


@pytest.mark.parametrize("dim", [4, 24], ids=["direct", "projected"])
def test_ids_and_vectors_are_those_of_vector_quantize_pytorch(dim):
    peers = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(1)
    levels = (8, 5, 7, 6)
    theirs, ours = peers.FSQ(levels=list(levels), dim=dim), FiniteScalarQuantizer(dim, levels)
    ours.load_state_dict({name: x for name, x in theirs.state_dict().items() if name.startswith("project")})
    vectors = drawn(20_000, dim)
    their_vectors, their_ids = theirs(vectors[None])
    assert torch.equal(ours.encode(vectors), their_ids[0].long())
    torch.testing.assert_close(ours.quantize(vectors).vectors, their_vectors[0])
    ids = torch.arange(math.prod(levels))
    torch.testing.assert_close(ours.lookup(ids), theirs.indices_to_codes(ids))


@pytest.mark.parametrize("levels", [(8, 2), (1,), (1001,)])
def test_numbers_of_levels_outside_the_range_are_refused(levels):
    with pytest.raises(ValueError, match=r"levels must be 3 to 1000 \(for two there is LookupFreeQuantizer\), got \("):
        FiniteScalarQuantizer(8, levels)


@pytest.mark.parametrize("levels", [(), (1000, 1000, 1000, 2000 // 2)])
def test_no_coordinate_and_too_many_codes_are_refused(levels):
    with pytest.raises(ValueError, match=r"at least one coordinate and make at most 2\*\*30 codes"):
        FiniteScalarQuantizer(8, levels)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_vectors_that_are_not_finite_are_refused(value):
    vectors = torch.zeros(3, 4)
    vectors[1, 2] = value
    quantizer = FiniteScalarQuantizer(4, (5, 5))
    for call in (quantizer.encode, quantizer.quantize):
        with pytest.raises(ValueError, match="must be finite"):
            call(vectors)
