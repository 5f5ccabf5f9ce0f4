import pytest
import torch

from multimodal.tokenizers.midi import CompoundEmbed

SIZES = (4, 18, 88, 66)


def random_ids(count: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(size - 2, (count,), generator=draws) for size in SIZES], dim=1)


def test_tokens_are_notes_with_their_index_in_the_item() -> None:
    ids = random_ids(6)
    tokens = CompoundEmbed(32).tokens(ids, torch.tensor([2, 0, 4]))
    assert torch.equal(tokens.inputs, ids)
    assert tokens.coordinates.tolist() == [[0], [1], [0], [1], [2], [3]]
    assert tokens.grid is None and torch.equal(tokens.coordinates[:, 0], tokens.position)


def test_mask_is_the_mask_id_of_every_field() -> None:
    embed = CompoundEmbed(32)
    tokens = embed.tokens(random_ids(5), torch.tensor([5]))
    shown_as_mask = torch.tensor([False, True, False, True, True])
    expected = tokens.inputs.clone()
    expected[shown_as_mask] = torch.tensor([3, 17, 87, 65])
    assert torch.equal(embed(tokens, shown_as_mask), embed(tokens.with_inputs(expected)))
    assert not torch.equal(embed(tokens, shown_as_mask)[1], embed(tokens)[1])
    assert torch.equal(embed(tokens, torch.zeros(5, dtype=torch.bool)), embed(tokens))


def test_forward_is_scaled_fields_in_a_row_through_a_linear_layer_plus_position() -> None:
    embed = CompoundEmbed(32, field_dim=16)
    tokens = embed.tokens(random_ids(3), torch.tensor([3]))
    fields = [torch.nn.functional.embedding(tokens.inputs[:, i], table.weight) * 4 for i, table in enumerate(embed.fields)]
    content = embed(tokens) - embed.proj(torch.cat(fields, dim=1))
    angle = 2.0  # of the fastest wave at index 2
    torch.testing.assert_close(content[2, [0, 16]], torch.tensor([angle, angle + torch.pi / 2]).sin(), atol=1e-5, rtol=0)
    assert not torch.equal(content[0], content[1])


def test_an_item_does_not_depend_on_its_neighbours() -> None:
    embed, ids = CompoundEmbed(32), random_ids(7)
    together = embed(embed.tokens(ids, torch.tensor([3, 4])))
    alone = embed(embed.tokens(ids[3:], torch.tensor([4])))
    torch.testing.assert_close(together[3:], alone)


def test_content_is_about_as_large_as_positions() -> None:
    torch.manual_seed(0)
    embed = CompoundEmbed(192)
    content = embed(embed.tokens(random_ids(200), torch.tensor([200]))) - embed.positions[:200]
    assert 0.5 < content.std() < 2


def test_random_inputs_are_uniform_over_the_full_vocabularies_and_independent() -> None:
    embed, count = CompoundEmbed(32), 40_000
    noise = torch.rand(count, generator=torch.Generator().manual_seed(0))
    tokens = embed.tokens(torch.zeros(count, 4, dtype=torch.int64), torch.full((count // 1000,), 1000))
    ids = embed.random_inputs(tokens, noise)
    assert ids.dtype == torch.int64
    for column, size in zip(ids.unbind(1), SIZES, strict=True):
        counts = column.bincount(minlength=size)
        assert len(counts) == size
        chi_squared = ((counts - count / size) ** 2 / (count / size)).sum()
        assert chi_squared < size + 5 * (2 * size) ** 0.5
    assert torch.corrcoef(ids.T.double()).fill_diagonal_(0).abs().max() < 0.02
    assert torch.equal(ids, embed.random_inputs(tokens, noise))  # a function of the noise


def test_random_inputs_of_extreme_noise_are_ids() -> None:
    embed = CompoundEmbed(32)
    tokens = embed.tokens(random_ids(2), torch.tensor([2]))
    ids = embed.random_inputs(tokens, torch.tensor([0.0, 1 - 2**-24]))
    assert (ids >= 0).all() and (ids < torch.tensor(SIZES)).all()


def test_long_items_are_refused() -> None:
    embed = CompoundEmbed(32, max_length=8)
    assert len(embed.tokens(random_ids(16), torch.tensor([8, 8])).inputs) == 16
    with pytest.raises(ValueError, match="9 tokens; max_length is 8"):
        embed.tokens(random_ids(16), torch.tensor([7, 9]))


def test_items_without_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"without lengths, got .*: a transform must mark its items ragged"):
        CompoundEmbed(32).tokens(random_ids(4), None)


def test_wrong_number_of_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="3 fields"):
        CompoundEmbed(32).tokens(random_ids(4)[:, :3], torch.tensor([4]))


@pytest.mark.parametrize("mask_ids", [(3, 17, 87), (3, 17, 87, 66), (-1, 17, 87, 65)])
def test_impossible_mask_ids_are_refused(mask_ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="mask_ids"):
        CompoundEmbed(32, mask_ids=mask_ids)


def test_pieces_of_one_length_need_no_lengths() -> None:
    embed, ids = CompoundEmbed(32), random_ids(6)
    together, alone = embed.tokens(ids.view(2, 3, 4)), embed.tokens(ids, torch.tensor([3, 3]))
    assert torch.equal(together.coordinates, alone.coordinates) and torch.equal(together.lengths, alone.lengths)
    assert torch.equal(embed(together), embed(alone))
    with pytest.raises(ValueError, match="an item has 3 tokens; max_length is 2"):
        CompoundEmbed(32, max_length=2).tokens(ids.view(2, 3, 4))


def test_as_published_it_adds_no_positions_but_a_type_and_a_norm() -> None:
    embed = CompoundEmbed(32, field_dim=16, positions=False, num_types=2, norm=torch.nn.LayerNorm)
    ids = random_ids(3)[[0, 1, 0]]
    vectors = embed(embed.tokens(ids, torch.tensor([3])))
    assert torch.equal(vectors[0], vectors[2])
    fields = torch.cat([table.weight[column] for table, column in zip(embed.fields, ids.T, strict=True)], 1)
    expected = torch.nn.functional.layer_norm(embed.proj(fields * 4) + embed.types.weight[0], (32,))
    torch.testing.assert_close(vectors, expected)
    assert "positions" not in embed.state_dict() and embed.types.weight.shape == (2, 32)


def test_ids_of_a_single_field_need_no_axis_for_it() -> None:
    """REMI: a table of 256, scaled, then a linear layer."""
    embed = CompoundEmbed(32, vocab_sizes=[169], field_dim=256)
    ids = torch.tensor([0, 1, 55, 110, 168])
    tokens, lengths = embed.tokens(ids, torch.tensor([2, 3])), torch.tensor([2, 3])
    assert torch.equal(tokens.inputs, ids) and torch.equal(embed(tokens), embed(embed.tokens(ids[:, None], lengths)))
    hidden = torch.tensor([True, False, False, False, True])
    assert torch.equal(embed(tokens, hidden), embed(tokens.with_inputs(torch.tensor([168, 1, 55, 110, 168]))))
    together = embed.tokens(ids[:4].view(2, 2))
    assert torch.equal(embed(together), embed(embed.tokens(ids[:4], torch.tensor([2, 2]))))
    drawn = embed.random_inputs(tokens, torch.tensor([0.0, 0.2, 0.5, 0.7, 1 - 2**-24]))
    assert drawn.shape == (5,) and ((drawn >= 0) & (drawn < 169)).all()
    with pytest.raises(ValueError, match="an item has 3 tokens; max_length is 2"):
        CompoundEmbed(32, vocab_sizes=[169], max_length=2).tokens(ids, lengths)
