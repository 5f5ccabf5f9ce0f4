"""Frames that are altered: shares over many items, what is shown and what is asked for, and independence of the batch."""

import pytest
import torch

from multimodal.masking import Alteration, SpanMasking
from multimodal.protocols import Tokens
from multimodal.tokenizers.audio import SpectrogramEmbed

ITEMS, LENGTH, BINS = 2000, 30, 10


def frames(*lengths: int, bins: int = BINS) -> Tokens:
    """Values tell item and place: none is 0, and no two are the same."""
    total = sum(lengths)
    return Tokens(1 + torch.arange(total * bins, dtype=torch.float32).view(total, bins), torch.tensor(lengths), torch.zeros(total, 2))


EMBED = SpectrogramEmbed(4, patch_size=[1, BINS], mean=0.0, std=1.0)
TOKENS, SEED = frames(*[LENGTH] * ITEMS), torch.arange(ITEMS)
MASKED = SpanMasking(0.3, 4)(TOKENS, SEED)


def shown(alteration: Alteration) -> torch.Tensor:
    found, as_mask, visible = alteration(EMBED, TOKENS, MASKED, SEED)
    assert visible is None and not as_mask.any() and found.coordinates is TOKENS.coordinates
    return found.inputs.view(ITEMS, LENGTH, BINS)


def test_one_draw_for_an_item_zeroes_replaces_or_keeps_all_of_its_spans():
    made, values, masked = shown(Alteration()), TOKENS.inputs.view(ITEMS, LENGTH, BINS), MASKED.view(ITEMS, LENGTH)
    assert torch.equal(made[~masked], values[~masked])
    kinds = {"zeroed": 0, "replaced": 0, "kept": 0}
    for own, true, hidden in zip(made, values, masked, strict=True):
        if (own[hidden] == 0).all():
            kinds["zeroed"] += 1
        elif torch.equal(own, true):
            kinds["kept"] += 1
        else:
            kinds["replaced"] += 1
            number = own[hidden][:, 0]
            assert ((number - true[0, 0]) / BINS).tolist() == [x for x in ((number - true[0, 0]) / BINS).tolist() if 0 <= x < LENGTH]
            assert torch.equal(own[hidden], number[:, None] + torch.arange(BINS))  # whole frames, of the same item
    assert kinds["zeroed"] / ITEMS == pytest.approx(0.8, abs=0.03)
    assert kinds["replaced"] / ITEMS == pytest.approx(0.1, abs=0.02)
    assert kinds["kept"] / ITEMS == pytest.approx(0.1, abs=0.02)
    assert torch.equal(Alteration().asked(TOKENS, MASKED, SEED), MASKED[:, None].expand(-1, BINS))  # in all three cases


def test_a_run_is_replaced_by_a_run_from_anywhere_in_the_item():
    made = ((shown(Alteration(0.0, 1.0))[:, :, 0] - 1) / BINS).long() - torch.arange(ITEMS)[:, None] * LENGTH
    masked, begins = MASKED.view(ITEMS, LENGTH), []
    for own, hidden in zip(made.tolist(), masked.tolist(), strict=True):
        for t in range(1, LENGTH):
            if hidden[t] and hidden[t - 1]:
                assert own[t] == own[t - 1] + 1
            elif hidden[t]:
                begins.append(own[t])
    share = torch.bincount(torch.tensor(begins), minlength=LENGTH)[:20].float()
    assert (share / share.mean() - 1).abs().max() < 0.35 and max(begins) > 20


def test_a_band_of_random_width_is_zeroed_in_all_frames_and_asked_for():
    alteration = Alteration(0.0, 0.0, frequency=0.45)
    made, asked = shown(alteration), alteration.asked(TOKENS, MASKED, SEED).view(ITEMS, LENGTH, BINS)
    band = made == 0
    assert torch.equal(band, band[:, :1].expand_as(band))
    assert torch.equal(asked, band | MASKED.view(ITEMS, LENGTH, 1))
    width, band = band[:, 0].sum(1), band[:, 0]
    assert torch.bincount(width).shape == (5,)  # 0 to 45% of 10, rounded down
    assert (torch.bincount(width) / ITEMS - 0.2).abs().max() < 0.03
    edges = (band[:, 1:] != band[:, :-1]).sum(1) + band[:, 0].long() + band[:, -1].long()
    assert (edges[width > 0] == 2).all()  # one piece
    lowest = band[width == 4].float().argmax(1)
    assert (torch.bincount(lowest, minlength=7) / len(lowest) - 1 / 7).abs().max() < 0.05


def test_noise_of_some_items_is_normal_and_asks_for_nothing():
    alteration = Alteration(0.0, 0.0, noise=0.15, deviation=0.2)
    added = alteration(EMBED, frames(*[LENGTH] * ITEMS).with_inputs(torch.ones_like(TOKENS.inputs)), MASKED, SEED).tokens.inputs - 1
    added = added.view(ITEMS, -1)
    noisy = added.abs().amax(1) > 0
    assert noisy.float().mean().item() == pytest.approx(0.15, abs=0.025)
    drawn = added[noisy]
    assert drawn.std().item() == pytest.approx(0.2, rel=0.02) and abs(drawn.mean().item()) < 0.003
    assert (drawn.abs() < 0.2).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert torch.equal(alteration.asked(TOKENS, MASKED, SEED), MASKED[:, None].expand(-1, BINS))


def test_an_item_does_not_depend_on_others_of_the_batch():
    alteration, masking, lengths = Alteration(0.4, 0.5, frequency=0.5, noise=0.5), SpanMasking(0.4, 3), (5, 17, 1, 9)
    tokens, seed = frames(*lengths), torch.tensor([3, 1, 4, 1])
    masked = masking(tokens, seed)
    together, asked = alteration(EMBED, tokens, masked, seed).tokens.inputs.split(lengths), alteration.asked(tokens, masked, seed)
    for i, (own, own_masked) in enumerate(zip(tokens.inputs.split(lengths), masked.split(lengths), strict=True)):
        alone = Tokens(own, torch.tensor([lengths[i]]), torch.zeros(lengths[i], 2))
        assert torch.equal(together[i], alteration(EMBED, alone, own_masked, seed[i : i + 1]).tokens.inputs)
        assert torch.equal(asked.split(lengths)[i], alteration.asked(alone, own_masked, seed[i : i + 1]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero": 0.9, "replace": 0.2}, "sum to at most 1"),
        ({"frequency": 1.1}, r"shares in \[0, 1\]"),
        ({"noise": -0.1}, r"shares in \[0, 1\]"),
        ({"deviation": 0.0}, "deviation must be positive"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Alteration(**settings)


def test_tokens_that_are_no_vectors_are_refused():
    tokens = Tokens(torch.zeros(4, dtype=torch.int64), torch.tensor([4]), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="floating-point vectors, got"):
        Alteration()(EMBED, tokens, torch.ones(4, dtype=torch.bool), torch.tensor([0]))
