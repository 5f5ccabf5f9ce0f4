import pytest
import torch

from multimodal.pretrained.vectors import VectorEmbed


def test_vectors_are_projected_one_by_one():
    embed, x = VectorEmbed(8, 5), torch.randn(6, 5)
    ragged, dense = embed.tokens(x, torch.tensor([4, 2])), embed.tokens(x.view(2, 3, 5))
    assert ragged.coordinates[:, 0].tolist() == [0, 1, 2, 3, 0, 1]
    assert dense.coordinates[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(embed(ragged), x @ embed.proj.weight.T + embed.proj.bias)
    assert torch.equal(embed(ragged), embed(dense))


def test_hidden_vectors_become_the_mask_token():
    embed, x = VectorEmbed(8, 5), torch.randn(3, 5)
    embed.mask_token.data.fill_(7.0)
    tokens = embed.tokens(x, torch.tensor([3]))
    shown = embed(tokens, torch.tensor([False, True, False]))
    assert shown[1].tolist() == [7.0] * 8
    assert torch.equal(shown[[0, 2]], embed(tokens)[[0, 2]])


def test_vectors_of_another_shape_are_refused():
    embed = VectorEmbed(8, 5)
    with pytest.raises(ValueError, match=r"vectors are \(n, width\) with lengths and 5 wide, got \(3, 4\)"):
        embed.tokens(torch.randn(3, 4), torch.tensor([3]))
    with pytest.raises(ValueError, match=r"\(items, length, width\) without lengths and 5 wide, got \(3, 5\)"):
        embed.tokens(torch.randn(3, 5))
