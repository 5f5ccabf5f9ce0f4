"""Residual quantization: stages in turn, their sum, their gradients."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.quantizers import EuclideanCodebook, FiniteScalarQuantizer, LookupFreeQuantizer, ResidualQuantizer

STAGES = {
    "codebook": partial(EuclideanCodebook, num_codes=16, commitment_weight=0.0),
    "finite scalar": partial(FiniteScalarQuantizer, levels=(5, 5)),
    "lookup free": partial(LookupFreeQuantizer, num_bits=4),
}


def drawn(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def made(num_stages: int = 3, dim: int = 6, stage: str = "codebook", **settings) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer(dim, num_stages, STAGES[stage], **settings)


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_quantizes_what_is_left(stage):
    quantizer, vectors = made(stage=stage).eval(), drawn(40, 6)
    ids, rest = quantizer.encode(vectors), vectors
    assert ids.shape == (40, 3) and len(quantizer.vocab_sizes) == 3
    for i, own in enumerate(quantizer.stages):
        assert torch.equal(ids[:, i], own.encode(rest))
        rest = rest - own.lookup(ids[:, i])
    torch.testing.assert_close(quantizer.lookup(ids), vectors - rest)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(STAGES)), st.integers(2, 5), st.integers(0, 50))
def test_ids_stand_for_what_was_quantized(stage, num_stages, seed):
    quantizer, vectors = made(num_stages, stage=stage).eval(), drawn(30, 6, seed)
    quantized = quantizer.quantize(vectors)
    assert torch.equal(quantized.ids, quantizer.encode(vectors))
    assert torch.equal(quantized.vectors, quantizer.lookup(quantized.ids))
    grid = quantized.ids.view(5, 2, 3, num_stages)
    assert torch.equal(quantizer.lookup(grid).flatten(0, 2), quantized.vectors)


def test_training_leaves_less_with_each_stage():
    quantizer, vectors = made(4).train(), drawn(2000, 6)
    for _ in range(30):
        quantizer.quantize(vectors)
    ids = quantizer.eval().encode(vectors)
    left = [(vectors - quantizer.lookup(ids[:, :j])).square().mean().item() for j in range(1, 5)]
    assert all(later < 0.85 * earlier for earlier, later in zip(left, left[1:], strict=False))
    assert left[0] < 0.75 and quantizer.quantize(vectors).parts["rest"].item() == pytest.approx(left[-1], rel=1e-5)


def test_every_stage_begins_with_what_the_stages_before_it_leave():
    quantizer, vectors = made(2).train(), drawn(500, 6)
    quantizer.quantize(vectors)
    spread = [stage.codes.norm(dim=1).mean() for stage in quantizer.stages]
    assert all(int(stage.updates) == 1 for stage in quantizer.stages) and spread[1] < 0.9 * spread[0]


def test_gradients_of_codebooks_reach_the_vectors_once():
    quantizer, vectors, weight = made(4).eval(), drawn(10, 6).requires_grad_(), drawn(10, 6, 1)
    (quantizer.quantize(vectors).vectors * weight).sum().backward()
    torch.testing.assert_close(vectors.grad, weight)


def test_the_commitment_is_to_the_sum_of_the_stages_so_far():
    quantizer, vectors = made(3, commitment_weight=0.5).eval(), drawn(20, 6).requires_grad_()
    quantized = quantizer.quantize(vectors)
    sums = torch.stack([quantizer.lookup(quantized.ids[:, :j]) for j in (1, 2, 3)])
    expected = 0.5 * (vectors.detach() - sums).square().mean()
    assert quantized.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    quantized.loss.backward()
    torch.testing.assert_close(vectors.grad, 0.5 * 2 * (vectors.detach() - sums).mean(0) / vectors.numel())


@pytest.mark.parametrize("stage", ["finite scalar", "lookup free"])
def test_every_parameter_of_every_stage_learns(stage):
    quantizer = made(stage=stage, commitment_weight=0.0)
    quantized = quantizer.quantize(drawn(30, 6))
    (quantized.vectors.square().sum() + quantized.loss).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in quantizer.parameters())


def test_parts_name_their_stage_and_losses_are_averaged():
    quantizer = made(2, stage="lookup free", commitment_weight=0.0).eval()
    vectors = drawn(30, 6)
    first = quantizer.stages[0].quantize(vectors)
    second = quantizer.stages[1].quantize(vectors - first.vectors)
    quantized = quantizer.quantize(vectors)
    assert quantized.loss.item() == pytest.approx((first.loss + second.loss).item() / 2, rel=1e-5)
    assert quantized.parts["batch_entropy_1"].item() == pytest.approx(second.parts["batch_entropy"].item(), rel=1e-5)
    assert {"commitment", "rest", "commitment_0", "single_entropy_0"} < set(quantized.parts)


def test_evaluation_and_encoding_change_nothing():
    quantizer = made().train()
    quantizer.quantize(drawn(100, 6))
    before = {name: x.clone() for name, x in quantizer.state_dict().items()}
    quantizer.encode(drawn(50, 6, 1))
    quantizer.eval().quantize(drawn(50, 6, 1))
    assert all(torch.equal(x, before[name]) for name, x in quantizer.state_dict().items())


@pytest.mark.parametrize("stage", STAGES)
def test_autocast_changes_no_id(stage):
    quantizer, vectors = made(stage=stage).eval(), drawn(200, 6)
    exact = quantizer.encode(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(vectors), exact)
        quantized = quantizer.quantize(vectors)
    assert torch.equal(quantized.ids, exact) and torch.equal(quantized.vectors, quantizer.lookup(exact))


def test_ids_are_those_of_vector_quantize_pytorch():
    peers = pytest.importorskip("vector_quantize_pytorch")
    theirs = peers.ResidualVQ(dim=12, num_quantizers=4, codebook_size=64).eval()
    ours = ResidualQuantizer(12, 4, partial(EuclideanCodebook, num_codes=64)).eval()
    for i, (layer, stage) in enumerate(zip(theirs.layers, ours.stages, strict=True)):
        stage.codes.copy_(drawn(64, 12, i + 1) * 0.6**i)
        layer.codebook = stage.codes
    vectors = drawn(5_000, 12)
    their_vectors, their_ids, _ = theirs(vectors[None])
    assert torch.equal(ours.encode(vectors), their_ids[0])
    torch.testing.assert_close(ours.lookup(their_ids[0]), their_vectors[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_stages": 1}, "num_stages must be at least 2 and commitment_weight at least 0, got 1 and 0.25"),
        ({"commitment_weight": -1.0}, "got 4 and -1.0"),
        ({"stage": ResidualQuantizer, "num_stages": 2}, "a stage must have one field; 2 of them have 8"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ResidualQuantizer(4, **settings)


@pytest.mark.parametrize("number", [0, 4])
def test_no_ids_and_more_than_stages_are_refused(number):
    with pytest.raises(ValueError, match=f"a vector has 3 ids, or the first of them; got {number}"):
        made(3).lookup(torch.zeros(2, number, dtype=torch.long))


def test_all_ranks_have_the_codes_of_one_rank_with_all_vectors(of_ranks):
    one = ResidualQuantizer(8, 2, partial(EuclideanCodebook, num_codes=12, revive_below=0.0)).train()
    torch.manual_seed(5)
    for step in range(4):
        one.quantize(torch.cat([3 * drawn(30 + 7 * rank, 8, 10 * step + rank) for rank in range(2)]))
    first, second = (outcomes["residual"]["plain"] for outcomes in of_ranks)
    for name, expected in one.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, atol=1e-4, rtol=1e-4)


def test_all_ranks_revive_the_same_codes(of_ranks):
    first, second = (outcomes["residual"]["reviving"] for outcomes in of_ranks)
    assert all(torch.equal(x, second[name]) for name, x in first.items())
    assert any(not torch.equal(x, of_ranks[0]["residual"]["plain"][name]) for name, x in first.items())
