"""Embeddings of items: late interaction against a loop, heads, and items that are picked out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.heads import LateInteraction, PooledEmbedding
from multimodal.heads import retrieval as module
from multimodal.heads.retrieval import Embeddings, inner_products, max_similarity
from multimodal.nn import Encoded


def random_embeddings(lengths: list[int], seed: int, width: int = 4) -> Embeddings:
    generator = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(sum(lengths), width, generator=generator), dim=1)
    return Embeddings(vectors, torch.tensor(lengths, dtype=torch.int64))


def by_loop(first: Embeddings, second: Embeddings, average: bool) -> torch.Tensor:
    """Return MaxSim as its definition says it."""
    result = torch.zeros(len(first), len(second))
    for i, own in enumerate(first.vectors.split(first.lengths.tolist())):
        for j, other in enumerate(second.vectors.split(second.lengths.tolist())):
            if len(own) and len(other):
                best = torch.stack([max((a @ b) for b in other) for a in own])
                result[i, j] = best.mean() if average else best.sum()
    return result


LENGTHS = st.lists(st.integers(0, 4), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(first=LENGTHS, second=LENGTHS, average=st.booleans(), at_once=st.sampled_from([1, 20, 2**24]))
def test_late_interaction_is_the_loop_over_tokens_in_blocks_of_any_size(first, second, average, at_once):
    own, other = random_embeddings(first, 1), random_embeddings(second, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", at_once)
        found = max_similarity(own, other, average)
    torch.testing.assert_close(found, by_loop(own, other, average))


def test_the_gradients_of_blocks_are_those_of_the_loop(monkeypatch):
    gradients = []
    for function in (lambda a, b: max_similarity(a, b), lambda a, b: by_loop(a, b, average=False)):
        monkeypatch.setattr(module, "AT_ONCE", 30)
        own, other = random_embeddings([2, 3], 1), random_embeddings([4, 1, 2], 2)
        own.vectors.requires_grad_(), other.vectors.requires_grad_()
        (function(own, other) * torch.arange(6.0).view(2, 3)).sum().backward()
        gradients.append((own.vectors.grad, other.vectors.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


@given(lengths=st.lists(st.integers(0, 3), min_size=1, max_size=6), data=st.data())
def test_items_are_picked_in_any_order(lengths, data):
    whole = random_embeddings(lengths, 3)
    index = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=6))
    picked = whole.select(torch.tensor(index, dtype=torch.int64))
    parts = whole.vectors.split(lengths)
    assert picked.lengths.tolist() == [lengths[i] for i in index]
    assert torch.equal(picked.vectors, torch.cat([parts[i] for i in index]) if index else whole.vectors[:0])


def test_blocks_are_the_whole():
    whole = random_embeddings([2, 0, 3, 1], 4)
    blocks = whole.blocks(3)
    assert [block.lengths.tolist() for block in blocks] == [[2, 0, 3], [1]]
    assert torch.equal(Embeddings.join(blocks).vectors, whole.vectors)


def test_late_interaction_leaves_out_tokens_that_are_no_content():
    torch.manual_seed(0)
    head, tokens = LateInteraction(6, embedding_dim=3), torch.randn(5, 6)
    sequence, valid = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([False, True, True, False, True])
    found = head.embeddings(Encoded(tokens, None), sequence, 2, valid)
    expected = F.normalize(tokens[[1, 2, 4]] @ head.proj.weight.T, dim=1)
    assert found.lengths.tolist() == [2, 1]
    torch.testing.assert_close(found.vectors, expected)


def test_a_pooled_embedding_without_projection_is_the_mean_token_of_length_1():
    tokens = torch.tensor([[3.0, 0.0], [3.0, 8.0], [0.0, 2.0]])
    found = PooledEmbedding(2).embeddings(Encoded(tokens, None), torch.tensor([0, 0, 1]), 2)
    torch.testing.assert_close(found.vectors, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    torch.testing.assert_close(inner_products(found, found), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PooledEmbedding(4, embedding_dim=0), "embedding_dim must be at least 1, or None"),
        (lambda: LateInteraction(4, embedding_dim=0), "embedding_dim must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_head_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
