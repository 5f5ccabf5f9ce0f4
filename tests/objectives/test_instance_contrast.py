"""Contrast of the views of a sample, against the formula of SimCLR; and views."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from multimodal.objectives import InstanceContrast, MaskedPrediction
from multimodal.objectives.instance_contrast import contrast
from multimodal.protocols import Preparation
from tests.objectives.pictures import (
    beit_encoder,
    beit_modality,
    build,
    encode,
    fit,
    mae_encoder,
    mae_modality,
    mixed_modality,
    picture_batch,
)

CONTRAST = partial(InstanceContrast, hidden=12, width=6, temperature=0.3, weight=2.0)


class Shade(Preparation):
    """Makes each picture darker, by its seed."""

    def forward(self, items, train):
        if not train:
            return items
        share = 0.5 + (items.seed % 97) / 194
        return replace(items, values=(items.values * share[:, None, None, None]).to(torch.uint8))


def test_the_loss_of_two_views_is_that_of_simclr():
    vectors = F.normalize(torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    sample = torch.arange(5).repeat(2)
    logits = (vectors @ vectors.T / 0.3).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(contrast(vectors, sample, 0.3), F.cross_entropy(logits, torch.arange(10).roll(5), reduction="none"))


def test_of_more_views_it_is_the_mean_and_what_has_no_other_view_or_nothing_to_be_told_from_is_left_out():
    vectors = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    sample = torch.tensor([0, 0, 0, 1, 1, 2])
    losses = []
    for i in range(5):
        others = [j for j in range(6) if j != i]
        chances = torch.stack([vectors[i] @ vectors[j] / 0.5 for j in others]).softmax(0)
        losses.append(torch.stack([-chances[n].log() for n, j in enumerate(others) if sample[j] == sample[i]]).mean())
    torch.testing.assert_close(contrast(vectors, sample, 0.5), torch.stack(losses))
    assert contrast(vectors[:3], sample[:3], 0.5).shape == contrast(vectors[3:4], sample[3:4], 0.5).shape == (0,)


@pytest.mark.parametrize(("views", "clones"), [(2, 1), (1, 2), (2, 2)])
def test_it_reads_the_mean_and_the_maximum_of_what_is_seen_of_each_view(views, clones):
    model = build(mae_encoder(), mae_modality(clones=clones), [MaskedPrediction, CONTRAST]).eval()
    encoded, goal = encode(model, picture_batch(3).repeated(views)), model.objectives[1]
    view = encoded.views["picture"]
    item = view.view.tokens.item[view.view.visible]
    rows = [view.seen[item == number] for number in range(3 * views * clones)]
    assert {len(row) for row in rows} == {4}  # of 16 patches
    pooled = torch.stack([torch.cat([row.mean(0), row.amax(0)]) for row in rows])
    vectors = F.normalize(goal.proj["picture"](pooled), dim=1)
    losses = contrast(vectors, torch.arange(3).repeat(views * clones), 0.3)
    term = goal(encoded)["picture"]
    assert term.count == len(rows) and term.weight == 2.0 and term.correct.shape == (0,)
    torch.testing.assert_close(term.loss, losses.sum())


def test_where_nothing_is_dropped_it_reads_all_tokens():
    model = build(beit_encoder(), beit_modality(), [MaskedPrediction, CONTRAST]).eval()
    encoded = encode(model, picture_batch(4).repeated(2))
    assert len(encoded.views["picture"].seen) == 4 * 2 * 16
    assert model.objectives[1](encoded)["picture"].count == 8


def test_views_of_a_step_have_seeds_of_their_own_and_evaluation_has_one():
    model = build(mae_encoder(), mae_modality(preparation=[Shade()]), [CONTRAST], views=2)
    batch = picture_batch(3)
    made = model.prepared(batch, train=True)
    first, second = made.items["picture"].values.split(3)
    assert made.num_samples == 6 and made.views == 2 and made.keys[:3] == ("picture0", "picture0", "picture1")
    assert made.items["picture"].sample.tolist() == [0, 2, 4, 1, 3, 5]
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(batch.items["picture"].values, picture_batch(3).items["picture"].values)  # as it was
    assert model.prepared(batch, train=False).num_samples == 3
    assert model.objectives[0](encode(model.eval(), batch)) == {}


def test_it_learns_to_tell_pictures_from_parts_of_them():
    torch.manual_seed(0)
    adamw = partial(torch.optim.AdamW, lr=3e-3)
    modality = mae_modality(preparation=[Shade()])
    model = build(mae_encoder(), modality, [CONTRAST], optimizer=adamw, views=2)
    losses = fit(model, [picture_batch(8)] * 60)
    chance = torch.tensor(15.0).log().item()
    assert losses[0] / 32 == pytest.approx(chance, abs=0.6)  # 16 views of weight 2
    assert losses[-1] / 32 < 0.6 * chance
    assert set(model.losses) == {"picture_contrast"}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        build(mae_encoder(), mae_modality(), [partial(InstanceContrast, temperature=0.0)])
    with pytest.raises(ValueError, match="InstanceContrast compares samples, but modality 'picture' mixes them"):
        build(mae_encoder(), mixed_modality(), [MaskedPrediction, InstanceContrast])
    with pytest.raises(ValueError, match="views must be at least 1, got 0"):
        build(mae_encoder(), mae_modality(), views=0)
