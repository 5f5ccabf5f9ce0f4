import pytest
import torch

from multimodal.masking import MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import LayerNorm, LearnedPosition
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.text import TextEmbed, TextTransform


def learned(dim: int) -> LearnedPosition:
    return LearnedPosition(dim, [10])


def test_tokens_are_ids_with_their_index_in_the_item() -> None:
    ids = torch.tensor([5, 6, 7, 8, 9])
    tokens = TextEmbed(8).tokens(ids, torch.tensor([2, 0, 3]))
    assert torch.equal(tokens.inputs, ids)
    assert tokens.coordinates.tolist() == [[0], [1], [0], [1], [2]]
    assert tokens.grid is None and torch.equal(tokens.coordinates[:, 0], tokens.position)


def test_texts_of_one_length_need_no_lengths() -> None:
    ids = torch.arange(6).view(2, 3)
    tokens = TextEmbed(8).tokens(ids)
    assert tokens.lengths.tolist() == [3, 3]
    assert tokens.inputs.tolist() == [0, 1, 2, 3, 4, 5]
    assert tokens.coordinates[:, 0].tolist() == [0, 1, 2, 0, 1, 2]


def test_the_shape_must_fit_the_lengths() -> None:
    with pytest.raises(ValueError, match=r"are \(items, length\) or \(items, length, 2\) without lengths, got \(4,\)"):
        TextEmbed(8).tokens(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"are \(n,\) or \(n, 2\) with lengths, got \(4, 3\)"):
        TextEmbed(8).tokens(torch.zeros(4, 3, dtype=torch.int64), torch.tensor([2, 2]))


def test_forward_is_the_norm_of_word_first_type_and_position() -> None:
    embed = TextEmbed(8, 20, position=learned, num_types=2, norm=LayerNorm)
    tokens = embed.tokens(torch.tensor([4, 0, 19]), torch.tensor([2, 1]))
    rows = [embed.words.weight[i] + embed.types.weight[0] + embed.position.table[place] for i, place in ((4, 0), (0, 1), (19, 0))]
    expected = torch.nn.functional.layer_norm(torch.stack(rows), (8,), eps=1e-6)
    torch.testing.assert_close(embed(tokens), expected)
    assert torch.equal(TextEmbed(8, 20)(tokens).isfinite(), torch.ones(3, 8, dtype=torch.bool))


def test_the_mask_is_an_id_with_the_position_of_what_it_hides() -> None:
    embed = TextEmbed(8, 20, mask_id=7, position=learned)
    tokens = embed.tokens(torch.tensor([4, 0, 19]), torch.tensor([3]))
    shown = embed(tokens, torch.tensor([False, True, False]))
    assert torch.equal(shown, embed(tokens.with_inputs(torch.tensor([4, 7, 19]))))
    assert not torch.equal(shown, embed(tokens))
    with pytest.raises(ValueError, match="this embedding has no mask_id"):
        TextEmbed(8, 20)(tokens, torch.tensor([False, True, False]))


def test_random_inputs_are_uniform_over_the_vocabulary() -> None:
    embed, count = TextEmbed(8, 50), 50_000
    noise = torch.rand(count, generator=torch.Generator().manual_seed(0))
    ids = embed.random_inputs(embed.tokens(torch.zeros(count, dtype=torch.int64), torch.tensor([count])), noise)
    counts = ids.bincount(minlength=50)
    assert len(counts) == 50
    assert ((counts - count / 50) ** 2 / (count / 50)).sum() < 50 + 5 * 100**0.5
    largest = TextEmbed(8, 64_010).random_inputs(embed.tokens(ids[:2], torch.tensor([2])), torch.tensor([0.0, 1 - 2**-24]))
    assert largest.tolist() == [0, 64_009]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="mask_id must be an id from 0 to 19, got 20"):
        TextEmbed(8, 20, mask_id=20)
    with pytest.raises(ValueError, match="vocab_size must be at least 1 and num_types at least 0, got 0 and 2"):
        TextEmbed(8, 0, num_types=2)


def test_it_is_built_again_from_its_settings() -> None:
    embed = TextEmbed(8, 20, mask_id=3, num_types=2, norm=LayerNorm)
    again = build(settings_of(embed, ("dim",)), 8)
    again.load_state_dict(embed.state_dict())
    tokens = embed.tokens(torch.tensor([4, 0, 19]), torch.tensor([3]))
    assert torch.equal(again(tokens, torch.tensor([True, False, False])), embed(tokens, torch.tensor([True, False, False])))


def test_it_serves_pretraining_on_bytes() -> None:
    from multimodal.batch import Items

    embed = TextEmbed(16, 259, mask_id=2)
    modality = Modality(16, TextTransform(), embed, RandomMasking(0.5), MaskReplaceKeep())
    ids = torch.arange(3, 203)
    items = Items(ids, sample=torch.arange(2), seed=torch.tensor([1, 2]), lengths=torch.tensor([150, 50]))
    view = modality.masked_view(items)
    assert torch.equal(view.targets, ids)
    assert view.masked.sum() == 100
    assert embed(view.tokens, view.shown_as_mask).shape == (200, 16)
