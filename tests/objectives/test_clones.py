"""Clones: several masks of an item in one step are what as many items with those seeds would be, and targets are made once."""

from functools import partial

import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.modality import CLONE_STEP
from multimodal.nn import ConvDecoder
from multimodal.objectives import LatentTargets, MaskedPrediction
from multimodal.tokenizers.image import PixelRenderer
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import (
    beit_encoder,
    beit_modality,
    build,
    encode,
    mae_encoder,
    mae_modality,
    mixed_modality,
    picture_batch,
    shaken,
)

CONV = {"decoder": partial(ConvDecoder, width=8, depth=2, groups=4, noise=0.0)}
LATENT = partial(LatentTargets, class_weight=0.5)
KINDS = {"mae": (mae_encoder, mae_modality, {}), "conv": (mae_encoder, mae_modality, CONV), "beit": (beit_encoder, beit_modality, {})}


def models(kind: str, clones: int) -> tuple[MaskedPretraining, MaskedPretraining]:
    """One with clones and one without, of the same weights."""
    encoder, modality, settings = KINDS[kind]
    built = [build(encoder(), modality(clones=count, **settings), [MaskedPrediction, LATENT]).eval() for count in (clones, 1)]
    built[1].load_state_dict(shaken(built[0]).state_dict())
    return built[0], built[1]


def copies(count: int, clones: int):
    """A batch that holds each picture once for each of its clones, with their seeds."""
    batch = picture_batch(count).items["picture"]
    rows = [(k, i) for k in range(clones) for i in range(count)]
    return collate(
        [Sample(f"{k} {i}", {"picture": Item(batch.values[i])}, seed=int(batch.seed[i] + k * CLONE_STEP) % 2**63) for k, i in rows]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_clones_are_as_many_items_with_those_seeds(kind):
    cloned, plain = models(kind, 3)
    one, other = encode(cloned, picture_batch(2)), encode(plain, copies(2, 3))
    masks = one.views["picture"].view.masked.view(6, 16)
    assert torch.equal(one.views["picture"].view.masked, other.views["picture"].view.masked)
    assert not torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[1])
    for mine, theirs in zip(cloned.objectives, plain.objectives, strict=True):
        term, wanted = mine(one)["picture"], theirs(other)["picture"]
        assert term.count == wanted.count
        torch.testing.assert_close(term.loss, wanted.loss, atol=1e-4, rtol=1e-4)
    sequence = one.views["picture"].view.sequence.view(6, 16)[:, 0]
    assert sequence.tolist() == [0, 3, 1, 4, 2, 5]


def test_the_teacher_sees_each_item_once():
    model, _ = models("mae", 4)
    goal, seen = model.objectives[1], []
    goal.teacher.blocks[0].register_forward_hook(lambda module, given, made: seen.append(len(given[0])))
    targets, pooled = goal.targets(encode(model, picture_batch(2)))
    assert seen == [2 * 17] and targets["picture"].shape == (4 * 32, 16) and pooled.shape == (8, 16)


def test_one_clone_is_the_item_itself():
    assert torch.equal(*(encode(models("mae", 1)[0], picture_batch(3)).views["picture"].view.masked for _ in range(2)))
    view = models("mae", 1)[0].modalities["picture"].masked_view(picture_batch(3).items["picture"])
    assert view.sequence.tolist() == [i for i in range(3) for _ in range(16)]


def test_pictures_show_the_first_clone():
    model = build(mae_encoder(), mae_modality(clones=3, renderer=PixelRenderer(grid=(4, 4))))
    assert len(model.pictures(picture_batch(2), 8)["picture"]) == 2


def test_settings_are_checked():
    with pytest.raises(ValueError, match="clones must be at least 1"):
        build(mae_encoder(), mae_modality(clones=0))
    with pytest.raises(ValueError, match="1 for a masking that mixes items, got 2"):
        build(mae_encoder(), mixed_modality(clones=2))
    with pytest.raises(ValueError, match=r"as many clones of a sample, whose sequence they share; got \[1, 2\]"):
        MaskedPretraining(mae_encoder(), {"one": mae_modality(clones=2), "other": mae_modality()})
