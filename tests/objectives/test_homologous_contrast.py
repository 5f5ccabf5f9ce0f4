"""MixedAE's contrast, token by token; and MixedAE whole."""

from functools import partial

import pytest
import torch

from multimodal.objectives import HomologousContrast, MaskedPrediction
from tests.objectives.pictures import build, encode, fit, mae_encoder, mae_modality, mixed_modality, picture_batch, shaken

BOTH = [MaskedPrediction, partial(HomologousContrast, width=6, temperature=0.3, weight=0.2)]


@pytest.mark.parametrize("count", [4, 5])  # the last group of five is one item alone: it has nothing to be told from
def test_the_loss_is_that_of_a_loop_over_tokens(count):
    model = shaken(build(mae_encoder(), mixed_modality(), BOTH)).eval()
    encoded, goal = encode(model, picture_batch(count)), model.objectives[1]
    view = encoded.views["picture"]
    visible = view.view.visible
    vectors = goal.proj(view.seen)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    item, group = view.view.tokens.item[visible], view.view.sequence[visible]
    losses = []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if j != i and group[j] == group[i]]
        scores = torch.stack([vectors[i] @ vectors[j] / 0.3 for j in others])
        friends = torch.tensor([bool(item[j] == item[i]) for j in others])
        if friends.any() and not friends.all():
            losses.append(-(scores.log_softmax(0)[friends]).mean())
    term = goal(encoded)["picture"]
    assert term.count == len(losses) == 32 and term.weight == pytest.approx(0.2)
    torch.testing.assert_close(term.loss, torch.stack(losses).sum(), atol=1e-4, rtol=1e-5)


def test_a_group_is_one_sequence_with_one_class_token():
    model = build(mae_encoder(), mixed_modality()).eval()
    encoded = encode(model, picture_batch(5))
    assert encoded.encoded.class_token.shape[0] == 3
    lengths = torch.bincount(encoded.given.sequence)
    assert lengths.tolist() == [16, 16, 8]  # every place once, but for the item without a partner
    places = encoded.given.coordinates[encoded.given.sequence == 0]
    assert len(places.unique(dim=0)) == 16


def test_it_learns():
    torch.manual_seed(0)
    model = build(mae_encoder(), mixed_modality(), BOTH, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    losses = fit(model, [picture_batch(4)] * 50)
    assert losses[-1] < 0.8 * losses[0]
    assert set(model.losses) == {"picture", "picture_homologous"}
    assert model.losses["picture_homologous"] / 32 < 2.5  # of 15 others 7 are friends: from ln 15 = 2.71, where nothing is known, to ln 7


def test_what_does_not_mix_is_refused():
    with pytest.raises(ValueError, match="HomologousContrast compares mixed items: give a modality MixedMasking, Drop and a decoder"):
        build(mae_encoder(), mae_modality(), BOTH)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        build(mae_encoder(), mixed_modality(), [partial(HomologousContrast, temperature=0.0)])
