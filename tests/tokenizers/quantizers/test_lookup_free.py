"""Lookup-free quantization: ids are bits, the entropies are those of all codes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.quantizers import LookupFreeQuantizer


def drawn(count: int, dim: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def choices(quantizer: LookupFreeQuantizer, vectors: torch.Tensor) -> torch.Tensor:
    """The probability of each code, from all the distances, in float64."""
    codes = quantizer.lookup(torch.arange(quantizer.vocab_sizes[0])).double()
    return (-torch.cdist(vectors.double(), codes).square() / quantizer.temperature).softmax(1)


def entropy(share: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(share, share).sum(-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 13), st.integers(0, 99))
def test_codes_are_their_own_codes(num_bits, seed):
    quantizer = LookupFreeQuantizer(num_bits, num_bits)
    ids = torch.randint(2**num_bits, (64,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(quantizer.encode(quantizer.lookup(ids)), ids)


def test_the_first_coordinate_is_the_lowest_bit_and_0_is_not_positive():
    vectors = torch.tensor([[3.0, -1.0, -1.0], [-1.0, 0.1, -1.0], [0.0, -0.0, 2.0], [1.0, 1.0, 1.0]])
    quantizer = LookupFreeQuantizer(3, 3)
    assert quantizer.encode(vectors).tolist() == [1, 2, 4, 7]
    assert quantizer.lookup(torch.tensor(6)).tolist() == [-1.0, 1.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_ids_stand_for_what_was_quantized(num_bits, seed):
    torch.manual_seed(seed)
    quantizer, vectors = LookupFreeQuantizer(9, num_bits), drawn(40, 9, seed=seed)
    quantized = quantizer.quantize(vectors)
    assert torch.equal(quantized.ids, quantizer.encode(vectors))
    assert torch.equal(quantized.vectors, quantizer.lookup(quantized.ids))
    assert int(quantized.ids.max()) < 2**num_bits


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_entropies_are_those_of_all_codes(temperature):
    quantizer, vectors = LookupFreeQuantizer(6, 6, temperature=temperature), drawn(30, 6)
    share = choices(quantizer, vectors)
    single, batch = quantizer.entropies(vectors)
    assert single.item() == pytest.approx(entropy(share).mean().item(), rel=1e-5)
    assert batch.item() == pytest.approx(entropy(share.mean(0)).item(), rel=1e-5)


def test_groups_of_bits_bound_the_entropy_of_the_batch_from_above():
    same = drawn(2000, 1).sign().expand(-1, 6)  # six bits that always agree: two codes are used
    batch = {bits: LookupFreeQuantizer(6, 6, group_bits=bits).entropies(same)[1].item() for bits in (1, 3, 6)}
    one = batch[6]
    assert one == pytest.approx(math.log(2), abs=0.01)
    assert batch[3] == pytest.approx(2 * one, rel=1e-3) and batch[1] == pytest.approx(6 * one, rel=1e-3)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    quantizer = LookupFreeQuantizer(5, 5, entropy_weight=0.3, diversity=0.5, commitment_weight=2.0, temperature=1.0)
    vectors = drawn(50, 5)
    loss, parts = quantizer.quantize(vectors)[2:]
    assert parts["commitment"].item() == pytest.approx((vectors.abs() - 1).square().mean().item(), rel=1e-5)
    expected = 0.3 * (parts["single_entropy"] - 0.5 * parts["batch_entropy"]) + 2 * parts["commitment"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_loss_spreads_the_ids():
    """Vectors that all have the same signs come to use every code, each for sure."""
    torch.manual_seed(0)
    vectors = (drawn(256, 4, 0.2) + 0.5).requires_grad_()
    quantizer = LookupFreeQuantizer(4, 4, entropy_weight=1.0, commitment_weight=0.1, temperature=1.0)
    optimizer = torch.optim.Adam([vectors], lr=0.02)
    start = quantizer.encode(vectors).unique().numel()
    for _ in range(200):
        optimizer.zero_grad()
        quantizer.quantize(vectors).loss.backward()
        optimizer.step()
    share = torch.bincount(quantizer.encode(vectors), minlength=16) / 256
    assert start < 8 and entropy(share) > 0.9 * math.log(16)
    assert quantizer.entropies(vectors)[0] < 0.2


def test_gradients_pass_straight_through():
    quantizer, vectors = LookupFreeQuantizer(3, 3), drawn(10, 3).requires_grad_()
    weight = drawn(10, 3, seed=1)
    (quantizer.quantize(vectors).vectors * weight).sum().backward()
    assert torch.equal(vectors.grad, weight)


def test_every_parameter_learns():
    quantizer = LookupFreeQuantizer(8, 5)
    quantized = quantizer.quantize(drawn(20, 8))
    (quantized.vectors.square().sum() + quantized.loss).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in quantizer.parameters())


def test_far_vectors_have_finite_losses_and_gradients():
    quantizer, vectors = LookupFreeQuantizer(4, 4), drawn(20, 4, 1e3).requires_grad_()
    loss = quantizer.quantize(vectors).loss
    loss.backward()
    assert torch.isfinite(loss) and bool(torch.isfinite(vectors.grad).all())


def test_autocast_and_training_change_no_id():
    torch.manual_seed(0)
    quantizer, vectors = LookupFreeQuantizer(16, 8), drawn(500, 16)
    exact = quantizer.eval().quantize(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(vectors), exact.ids)
        rounded = quantizer.train().quantize(vectors)
    assert torch.equal(rounded.vectors, exact.vectors) and rounded.loss == exact.loss


@pytest.mark.parametrize("dim", [6, 20], ids=["direct", "projected"])
def test_ids_and_losses_are_those_of_vector_quantize_pytorch(dim):
    """Theirs has the first coordinate as the highest bit."""
    peers = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(1)
    theirs = peers.LFQ(dim=dim, codebook_size=64, entropy_loss_weight=0.1, commitment_loss_weight=0.25).train()
    ours = LookupFreeQuantizer(dim, 6, temperature=0.01)
    if dim != 6:
        into, out = theirs.project_in, theirs.project_out
        copied = {"project_in.weight": into.weight.flip(0), "project_in.bias": into.bias.flip(0)}
        ours.load_state_dict(copied | {"project_out.weight": out.weight.flip(1), "project_out.bias": out.bias})
    vectors = drawn(5_000, dim)
    their_vectors, their_ids, their_loss = theirs(vectors[None])
    quantized = ours.quantize(vectors if dim != 6 else vectors.flip(1))
    assert torch.equal(quantized.ids, their_ids[0].long())
    torch.testing.assert_close(quantized.vectors if dim != 6 else quantized.vectors.flip(1), their_vectors[0])
    assert quantized.loss.item() == pytest.approx(their_loss.item(), abs=1e-3)  # theirs clamps probabilities at 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_bits": 0}, "num_bits must be 1 to 30 and group_bits 1 to 16, got 0 and 8"),
        ({"num_bits": 31}, "got 31 and 8"),
        ({"group_bits": 17}, "got 13 and 17"),
        ({"entropy_weight": -1.0}, "must be at least 0, temperature positive; got -1.0, 1.0, 0.25 and 0.01"),
        ({"temperature": 0.0}, "got 0.1, 1.0, 0.25 and 0.0"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LookupFreeQuantizer(8, **settings)
