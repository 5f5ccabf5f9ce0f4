"""A codebook of vectors of any length: moving averages as computed by hand, dead codes revived, nothing changed in evaluation."""

import math

import pytest
import torch

from multimodal.tokenizers.quantizers import EuclideanCodebook


def drawn(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def started(dim: int = 4, num_codes: int = 8, **settings) -> EuclideanCodebook:
    """A codebook that has seen its first batch."""
    torch.manual_seed(0)
    codebook = EuclideanCodebook(dim, num_codes, **settings).train()
    codebook.quantize(drawn(100, dim, seed=99))
    return codebook


def test_codes_are_the_moving_averages_of_their_vectors():
    codebook = started(decay=0.25, revive_below=0.0)
    codes, sums, counts = (x.double() for x in (codebook.codes, codebook.sums, codebook.counts))
    for step in range(5):
        vectors = drawn(6, 4, step) * 2  # fewer than codes: some are not used
        ids = torch.cdist(vectors.double(), codes).argmin(1)
        assert torch.equal(codebook.quantize(vectors).ids, ids)
        hot = torch.nn.functional.one_hot(ids, 8).double()
        decay = min(0.25, (2 + step) / (11 + step))  # the first batch was an update too
        counts, sums = decay * counts + (1 - decay) * hot.sum(0), decay * sums + (1 - decay) * hot.T @ vectors.double()
        codes = torch.where(hot.sum(0)[:, None] > 0, sums / counts[:, None], codes)
        torch.testing.assert_close(codebook.codes.double(), codes, rtol=1e-5, atol=1e-6)
        assert bool((hot.sum(0) == 0).any())


def test_the_first_batch_sets_the_codes_to_the_means_of_its_clusters():
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0]])
    vectors = (centres[:, None] + 0.1 * drawn(30, 2).view(3, 10, 2)).flatten(0, 1)
    torch.manual_seed(0)
    codebook = EuclideanCodebook(2, 3).train()
    order = torch.tensor([0, 10, 20])
    torch.randperm, kept = lambda *_, **__: torch.cat([order, torch.arange(30)]), torch.randperm  # one vector of each cluster is drawn
    try:
        codebook.quantize(vectors)
    finally:
        torch.randperm = kept
    torch.testing.assert_close(codebook.codes, vectors.view(3, 10, 2).mean(1))
    assert bool(codebook.updates)


def test_fewer_vectors_than_codes_initialise_them():
    codebook = EuclideanCodebook(4, 50).train()
    codebook.quantize(drawn(7, 4))
    assert bool(torch.isfinite(codebook.codes).all()) and codebook.encode(drawn(7, 4)).unique().numel() == 7


@pytest.mark.parametrize(("revive_below", "used"), [(0.03, (62, 64)), (0.0, (1, 20))])
def test_codes_that_are_hardly_used_are_revived(revive_below, used):
    """All codes begin in one small cluster; the vectors then come from elsewhere, and the nearest few codes take them all."""
    torch.manual_seed(0)
    codebook = EuclideanCodebook(4, 64, decay=0.9, revive_below=revive_below).train()
    codebook.quantize(0.01 * drawn(200, 4) + 3)
    for step in range(120):
        codebook.quantize(drawn(500, 4, step))
    number = codebook.eval().encode(drawn(2000, 4, 1000)).unique().numel()
    assert used[0] <= number <= used[1]


def test_a_revived_code_is_a_vector_of_the_batch_and_stays_for_a_while():
    codebook = started(num_codes=4, dim=2)
    codebook.updates.fill_(10_000)
    codebook.codes[0], codebook.sums[0], codebook.counts[0] = 1e3, 0.0, 0.0
    vectors = drawn(50, 2)
    codebook.quantize(vectors)
    moved = codebook.codes[0].clone()
    assert bool((vectors == moved).all(1).any())
    assert codebook.counts[0].item() == pytest.approx(math.e * 0.03 * codebook.counts[1:].sum().item() / 4, rel=1e-4)
    revived = [int(codebook.quantize(codebook.codes[1].expand(50, 2)).parts["revived_codes"]) for _ in range(100)]
    assert torch.equal(codebook.codes[0], moved) and not any(revived)
    revived = [int(codebook.quantize(codebook.codes[1].expand(50, 2)).parts["revived_codes"]) for _ in range(20)]
    assert any(revived)


def test_evaluation_changes_nothing():
    codebook = started().eval()
    before = {name: x.clone() for name, x in codebook.state_dict().items()}
    codebook.encode(drawn(50, 4))
    codebook.quantize(drawn(50, 4))
    codebook.lookup(torch.arange(8))
    assert all(torch.equal(x, before[name]) for name, x in codebook.state_dict().items())
    codebook.train().encode(drawn(50, 4))
    assert all(torch.equal(x, before[name]) for name, x in codebook.state_dict().items())


def test_a_new_codebook_in_evaluation_stays_as_it_was_drawn():
    codebook = EuclideanCodebook(4, 8).eval()
    codes = codebook.codes.clone()
    codebook.quantize(drawn(50, 4))
    assert torch.equal(codebook.codes, codes) and not bool(codebook.updates)


def test_training_goes_on_exactly_after_a_restart():
    codebook, other = started(), EuclideanCodebook(4, 8).train()
    other.load_state_dict(codebook.state_dict())
    for step in range(3):
        outcomes = []
        for each in (codebook, other):
            torch.manual_seed(step)
            outcomes.append(each.quantize(drawn(20, 4, step)))
        assert torch.equal(outcomes[0].ids, outcomes[1].ids) and torch.equal(codebook.codes, other.codes)


def test_gradients_pass_straight_through_and_the_commitment_pulls():
    codebook, vectors = started(commitment_weight=0.5).eval(), drawn(10, 4).requires_grad_()
    quantized, weight = codebook.quantize(vectors), drawn(10, 4, 1)
    assert torch.equal(quantized.vectors, codebook.lookup(quantized.ids))
    (quantized.vectors * weight).sum().backward()
    torch.testing.assert_close(vectors.grad, weight)
    vectors.grad = None
    codebook.quantize(vectors).loss.backward()
    torch.testing.assert_close(vectors.grad, 0.5 * 2 * (vectors.detach() - codebook.codes[quantized.ids]) / vectors.numel())
    assert not list(codebook.parameters())


def test_autocast_changes_no_id_and_no_code():
    exact, rounded = started(), started()
    with torch.autocast("cpu", torch.bfloat16):
        ids = rounded.quantize(drawn(200, 4)).ids
    assert torch.equal(ids, exact.quantize(drawn(200, 4)).ids) and torch.equal(rounded.codes, exact.codes)
    assert rounded.codes.dtype == torch.float32


def test_ids_are_those_of_vector_quantize_pytorch():
    peers = pytest.importorskip("vector_quantize_pytorch")
    theirs = peers.VectorQuantize(dim=16, codebook_size=300).eval()
    ours = EuclideanCodebook(16, 300).eval()
    codes = drawn(300, 16, 1) * 1.5
    ours.codes.copy_(codes)
    theirs.codebook = codes
    vectors = drawn(5_000, 16)
    assert torch.equal(ours.encode(vectors), theirs(vectors[None])[1][0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_codes": 0}, "num_codes must be at least 1 and commitment_weight at least 0, got 0 and 0.25"),
        ({"commitment_weight": -1.0}, "got 1024 and -1.0"),
        ({"decay": 1.0}, r"decay and revive_below must be in \[0, 1\), got 1.0 and 0.03"),
        ({"revive_below": -0.1}, "got 0.99 and -0.1"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EuclideanCodebook(4, **settings)


def test_vectors_that_are_not_finite_are_refused():
    vectors = drawn(5, 4)
    vectors[2, 1] = math.nan
    codebook = EuclideanCodebook(4, 8).train()
    with pytest.raises(ValueError, match="must be finite"):
        codebook.quantize(vectors)
    assert not bool(codebook.updates)
