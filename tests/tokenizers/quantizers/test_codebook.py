"""The codebook of directions: it moves as published, its codes stay alive, and only training changes it."""

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from multimodal.tokenizers.quantizers import Codebook
from multimodal.tokenizers.quantizers.k_means import spherical_k_means


def drawn(count: int, dim: int = 4, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) * scale


def started(num_codes: int, dim: int = 4, **settings) -> Codebook:
    """A codebook with random codes that no k-means replaces."""
    torch.manual_seed(0)
    codebook = Codebook(dim, num_codes, **settings)
    codebook.initialized.fill_(True)
    return codebook.train()


def states(codebook: Codebook) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in codebook.state_dict().items()}


def test_codes_move_as_published_and_those_without_vectors_stay():
    codebook = started(12, decay=0.9, revive_below=0.0)
    codes, usage = codebook.codes.double(), torch.zeros(12, dtype=torch.float64)
    never = torch.ones(12, dtype=torch.bool)
    for step in range(5):
        vectors = F.normalize(drawn(9, seed=step).abs().double(), dim=1)  # of one orthant: some codes get none
        ids = (vectors @ codes.T).argmax(1)
        outcome = codebook.quantize(vectors.float() * 7)
        assert torch.equal(outcome.ids, ids)
        torch.testing.assert_close(outcome.loss.double(), (vectors - codes[ids]).square().mean())
        for code in ids.unique().tolist():
            mean = F.normalize(vectors[ids == code].mean(0), dim=0)
            codes[code] = F.normalize(0.9 * codes[code] + 0.1 * mean, dim=0)
            never[code] = False
        kept = math.exp(-9 / (16 * 12))  # over 16 vectors for each code
        usage = kept * usage + (1 - kept) * ids.bincount(minlength=12)
        torch.testing.assert_close(codebook.codes.double(), codes, atol=1e-6, rtol=0)
        torch.testing.assert_close(codebook.usage.double(), usage, atol=1e-6, rtol=0)
    assert 2 < int(never.sum()) < 12
    assert torch.equal(codebook.codes[never], started(12).codes[never])


def test_the_gradient_is_that_of_the_directions():
    codebook, weight = started(6), drawn(10, seed=5)
    vectors = drawn(10).requires_grad_()
    outcome = codebook.eval().quantize(vectors)
    assert torch.equal(outcome.vectors, codebook.codes[outcome.ids])
    (outcome.vectors * weight).sum().backward()
    again = drawn(10).requires_grad_()
    (F.normalize(again, dim=1) * weight).sum().backward()
    assert again.grad.abs().sum() > 1
    torch.testing.assert_close(vectors.grad, again.grad)
    assert not list(codebook.parameters())


@pytest.mark.parametrize("start", [False, True])
def test_only_training_changes_anything(start):
    codebook = started(8) if start else Codebook(4, 8)
    before, vectors = states(codebook), drawn(20)
    ids = codebook.eval().quantize(vectors).ids
    assert torch.equal(ids, codebook.encode(vectors)) and torch.equal(codebook.train().encode(vectors), ids)
    assert all(torch.equal(x, before[name]) for name, x in codebook.state_dict().items())
    codebook.quantize(vectors)
    assert not torch.equal(codebook.codes, before["codes"])


def test_directions_are_compared_in_single_precision_under_autocast():
    codebook, vectors = started(50), drawn(200, seed=3)
    ids = codebook.encode(vectors)
    assert torch.equal(ids, (F.normalize(vectors, dim=1).double() @ codebook.codes.double().T).argmax(1))
    assert torch.equal(codebook.encode(vectors * 3), ids)
    with torch.autocast("cpu", torch.bfloat16):
        outcome = codebook.quantize(vectors)
        assert torch.equal(outcome.ids, ids) and outcome.vectors.dtype == codebook.codes.dtype == torch.float32
    torch.testing.assert_close(codebook.codes.norm(dim=1), torch.ones(50))
    assert torch.equal(codebook.lookup(ids.view(10, 20)), codebook.codes[ids].view(10, 20, 4))


def test_k_means_begins_with_the_first_training_batch():
    centres = F.normalize(drawn(5, dim=8, seed=2), dim=1)
    vectors = centres.repeat_interleave(40, 0) * 9 + drawn(200, dim=8, seed=3, scale=0.1)
    torch.manual_seed(3)
    codebook = Codebook(8, 40).train()
    codebook.quantize(vectors)
    assert bool(codebook.initialized)
    assert (centres @ codebook.codes.T).amax(1).min() > 0.99
    spread = (F.normalize(vectors, dim=1) - codebook.codes[codebook.encode(vectors)]).square().sum(1).mean()
    assert spread < 0.002
    codes = codebook.codes.clone()
    codebook.quantize(vectors)
    assert (codebook.codes * codes).sum(1).min() > 0.99  # no second beginning


def test_k_means_is_as_described():
    directions = F.normalize(drawn(60, dim=3), dim=1)
    torch.manual_seed(1)
    means, counts = spherical_k_means(directions, 7, rounds=4)
    torch.manual_seed(1)
    expected = directions[torch.randperm(60)[:7]].double()
    for _ in range(4):
        ids = (directions.double() @ expected.T).argmax(1)
        found = ids.bincount(minlength=7)
        sums = torch.zeros(7, 3, dtype=torch.float64).index_add_(0, ids, directions.double())
        expected = torch.where(found[:, None] > 0, F.normalize(sums, dim=1), expected)
    assert torch.equal(counts, found)
    torch.testing.assert_close(means.double(), expected, atol=1e-6, rtol=0)


def test_fewer_vectors_than_codes_are_all_codes():
    codebook = Codebook(4, 20).train()
    vectors = drawn(7)
    ids = codebook.quantize(vectors).ids
    assert len(ids.unique()) == 7
    revived = codebook.quantize(drawn(13, seed=1)).parts["revived_codes"]
    assert revived == 13  # the first batch had no vectors for them
    assert len(codebook.encode(torch.cat([vectors, drawn(13, seed=1)])).unique()) == 20


def test_an_unused_code_comes_to_where_codes_stand_thinnest():
    codebook = started(3, dim=2, revive_below=0.2)
    codebook.codes.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 1e-3]]))
    codebook.usage.copy_(torch.tensor([1.0, 1.0, 0.1]))
    vectors = torch.tensor([[1.0, -1e-2], [-1.0, -1e-2], [1e-2, 1.0]]).repeat_interleave(8, 0)
    outcome = codebook.quantize(vectors)
    assert outcome.parts["revived_codes"] == 1
    torch.testing.assert_close(codebook.codes[2], torch.tensor([0.01, 1.0]), atol=1e-3, rtol=0)
    kept = math.exp(-24 / (16 * 3))
    used, other, unused = 16 - 15 * kept, 8 - 7 * kept, 0.1 * kept
    torch.testing.assert_close(
        codebook.usage, torch.tensor([used, other, (used + other + unused) / 3])
    )  # as if evenly used: time to be found
    keep = started(3, dim=2, revive_below=0.0)
    keep.load_state_dict({**codebook.state_dict(), "usage": torch.tensor([1.0, 1.0, 0.0])})
    assert keep.quantize(torch.tensor([[1.0, 0.0]])).parts["revived_codes"] == 0
    assert torch.equal(keep.codes[1:], codebook.codes[1:])


def long_tailed(steps: int, batch: int = 512, last: int = 512):
    """Batches, the last one of another size, of vectors around 400 centres.

    Frequencies fall as 1 / rank. At first all vectors point nearly the same way, as those of an untrained encoder do; then they spread.
    """
    generator = torch.Generator().manual_seed(0)
    centres, common = torch.randn(400, 8, generator=generator), torch.randn(8, generator=generator)
    frequency = 1 / torch.arange(1, 401).float()
    for step in range(steps):
        count, spread = (last if step == steps - 1 else batch), min(1.0, 0.05 + step / 100)
        chosen = torch.multinomial(frequency, count, replacement=True, generator=generator)
        yield common + spread * (centres[chosen] - common) + spread * 0.3 * torch.randn(count, 8, generator=generator)


def usage_after_training(**settings) -> float:
    torch.manual_seed(0)
    codebook = Codebook(8, 1024, **settings).train()
    *batches, last = long_tailed(200, last=20_000)
    for vectors in batches:
        codebook.quantize(vectors)
    return len(codebook.encode(last).unique()) / 1024


def test_codes_stay_alive_where_those_of_the_original_die():
    assert usage_after_training() >= 0.95
    assert usage_after_training(revive_below=0.0) < 0.6


def test_training_goes_on_exactly_from_its_state():
    whole, part = Codebook(8, 64).train(), Codebook(8, 64).train()
    batches = list(long_tailed(12, 128, 128))
    torch.manual_seed(0)
    for vectors in batches:
        whole.quantize(vectors)
    torch.manual_seed(0)
    for vectors in batches[:6]:
        part.quantize(vectors)
    again = Codebook(8, 64).train()
    again.load_state_dict(part.state_dict())
    for vectors in batches[6:]:
        again.quantize(vectors)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in whole.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_codes": 0}, "num_codes must be at least 1"),
        ({"dim": 0}, "dim must be at least 1"),
        ({"decay": 1.0}, r"must be in \[0, 1\), got 1.0"),
        ({"revive_below": -0.1}, r"got 0.99 and -0.1"),
        ({"commitment_weight": -1.0}, "commitment_weight at least 0"),
    ],
)
def test_settings_outside_their_ranges_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Codebook(**{"dim": 4, "num_codes": 5, **settings})


def test_ids_and_codes_are_those_of_vector_quantize_pytorch():
    library = pytest.importorskip("vector_quantize_pytorch")
    torch.manual_seed(0)
    settings = {"use_cosine_sim": True, "decay": 0.9, "commitment_weight": 1.0, "rotation_trick": False}
    theirs = library.VectorQuantize(8, codebook_size=60, threshold_ema_dead_code=0, **settings)
    ours = started(60, dim=8, decay=0.9, revive_below=0.0)
    ours.codes.copy_(theirs._codebook.embed[0])
    vectors = drawn(500, dim=8, seed=4)
    _, ids, _ = theirs.eval()(vectors[None])
    assert torch.equal(ours.encode(vectors), ids[0]) and len(ids.unique()) > 50


def test_all_ranks_have_the_same_codes_and_those_of_one_rank_with_all_vectors(of_ranks):
    make = partial(Codebook, 8, 24, decay=0.9, revive_below=0.0)
    torch.manual_seed(0)
    one = make().train()
    for (first, second), *rest in [zip(*of_ranks_batches(), strict=True)]:
        torch.manual_seed(5)
        one.quantize(torch.cat([first, second]))
        for pair in rest:
            one.quantize(torch.cat(pair))
    ours = states(one)
    first, second = (outcomes["codebook"] for outcomes in of_ranks)
    for name in ("codes", "usage", "initialized"):
        assert torch.equal(first["plain"][name], second["plain"][name])
        torch.testing.assert_close(first["plain"][name], ours[name], atol=1e-6, rtol=1e-6)
    assert first["revived"] > 0
    for name in ("codes", "usage", "initialized"):
        assert torch.equal(first["reviving"][name], second["reviving"][name])


def of_ranks_batches() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the two ranks of ``ranks_script.py`` quantize: unequally many vectors."""
    return tuple([drawn(30 + 7 * rank, dim=8, seed=10 * step + rank) for step in range(4)] for rank in range(2))
