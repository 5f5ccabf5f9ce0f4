"""What holds for every objective: one exact mean however a batch is split, gradients for all parameters, scores, absent modalities."""

from functools import partial
from pathlib import Path

import pytest
import torch

from multimodal.batch import collate
from multimodal.masking import AdversarialMasking, Drop, RandomMasking
from multimodal.nn import Decoder
from multimodal.objectives import ClassAggregation, HomologousContrast, LatentTargets, MaskedPrediction
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import beit_encoder, beit_modality, build, fit, mae_encoder, mae_modality, mixed_modality, picture_batch
from tests.objectives.pictures import encode as encoded_of
from tests.ranks import run_script
from tests.training.conftest import build_model, make_sample

SGD = {
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
}
LEARNING = partial(beit_modality, masking=AdversarialMasking(0.4, shares=(0.2, 0.4), dropout=0.0, book_every=1))
CASES = {
    "beit v2": (beit_encoder, beit_modality, [MaskedPrediction, partial(ClassAggregation, early_layer=2)]),
    "mae": (mae_encoder, mae_modality, None),
    "data2vec": (mae_encoder, mae_modality, [partial(LatentTargets, class_weight=0.5, decay=0.5, final_decay=0.9)]),
    "mixed": (mae_encoder, mixed_modality, [MaskedPrediction, HomologousContrast]),
    "adversarial": (beit_encoder, LEARNING, None),
}


def make(name: str) -> MaskedPretraining:
    torch.manual_seed(0)
    encoder, modality, objectives = CASES[name]
    return build(encoder(), modality(), objectives, **SGD)


def weights(model: MaskedPretraining) -> dict[str, torch.Tensor]:
    """Return what a run has learned: weights, and what objectives remember."""
    names = [name for name in model.state_dict() if "scores" not in name and "deviation" not in name]
    memory = {name: tensor for goal in model.objectives for name, tensor in goal.memory().items()}
    return {name: model.state_dict()[name].clone() for name in names} | memory


@pytest.mark.parametrize("name", CASES)
def test_accumulated_batches_equal_one_large_batch(name):
    whole, parts = make(name), make(name)
    start = weights(whole)
    fit(whole, [picture_batch(6)])
    fit(parts, [picture_batch(4), picture_batch(2, first=4)], accumulate_grad_batches=2)  # groups of mixed items stay together
    assert any(not torch.equal(start[key], value) for key, value in weights(whole).items())
    for key, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[key], value, atol=1e-6, rtol=1e-5, msg=key)


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_every_trained_parameter_has_a_gradient(name, samples):
    model = make(name)
    model.log = lambda *args, **kwargs: None
    model.training_step(picture_batch(samples) if samples else collate([]), 0).backward()
    trained = {key: x for key, x in model.named_parameters() if x.requires_grad}
    assert [key for key, x in trained.items() if x.grad is None] == []
    assert samples or all((x.grad == 0).all() for x in trained.values())
    if samples and name not in ("beit v2", "adversarial"):
        assert (model.modalities["picture"].embed.mask_token.grad == 0).all()  # it is never shown where tokens are dropped


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_among_others_changes_nothing(name):
    one, other = make(name), make(name)
    fit(one, [picture_batch(4)])
    fit(other, [picture_batch(4), collate([])], accumulate_grad_batches=2)
    for key, value in weights(one).items():
        torch.testing.assert_close(weights(other)[key], value, atol=1e-6, rtol=1e-5, msg=key)


def test_objectives_of_one_name_are_refused():
    with pytest.raises(ValueError, match="would report 'picture' twice"):
        build(mae_encoder(), mae_modality(), [MaskedPrediction, MaskedPrediction])


def test_modalities_of_ids_and_of_vectors_train_together():
    """Pictures are seen in part and predicted as values, pairs are seen whole and predicted as ids; some batches lack one of them."""
    toy = build_model()
    torch.manual_seed(0)
    modalities = {"picture": mae_modality(), "pairs": lambda dim: toy.modalities["pairs"]}
    model = MaskedPretraining(mae_encoder(), modalities, [MaskedPrediction, partial(LatentTargets, decay=0.9, final_decay=0.9)], **SGD)
    samples = [
        make_sample(number, *names) for number, names in enumerate([("picture", "pairs"), ("pairs",), ("picture",), ("pairs", "picture")])
    ]
    fit(model, [collate(samples), collate(samples[1:2]), collate(samples[2:3])])
    assert all(x.isfinite().all() for x in model.parameters())
    model._terms(collate(samples), "val")
    scores = model.scores["val_scores"].compute()
    assert {"loss/picture", "loss/pairs", "loss/picture_latent", "loss/pairs_latent", "accuracy/pairs_left"} <= set(scores)
    assert "accuracy/picture" not in scores and scores["tokens/picture"] == scores["tokens/picture_latent"] == 36


def test_a_sample_that_is_dropped_whole_still_has_something_to_predict_from():
    modality = mae_modality(masking=RandomMasking(0.99), corruption=Drop(), decoder=partial(Decoder, width=8, depth=1, num_heads=2))
    model = build(mae_encoder(), modality).eval()
    view = encoded_of(model, picture_batch(3)).views["picture"].view
    assert view.visible.view(3, 16).sum(1).tolist() == [1, 1, 1] and view.masked.view(3, 16).sum(1).tolist() == [15, 15, 15]
    assert not (view.visible & view.masked).any()


def test_mixed_items_and_other_modalities_are_refused():
    with pytest.raises(ValueError, match="modality 'picture' mixes samples into one sequence"):
        MaskedPretraining(mae_encoder(), {"picture": mixed_modality(), "other": mae_modality()})


TRAINED_TWICE = ["beit v2", "data2vec", "adversarial"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the weights after training on one process and on two, each started once for all models."""
    folder, script = tmp_path_factory.mktemp("trained"), Path(__file__).with_name("ddp_script.py")
    for ranks in (1, 2):
        run_script(script, str(folder), str(ranks), *TRAINED_TWICE, ranks=ranks)
    return folder


@pytest.mark.parametrize("name", TRAINED_TWICE)
def test_two_processes_train_as_one(trained, name):
    one, first, second = (torch.load(trained / f"{name}_{part}.pt", weights_only=True) for part in ("1_0", "2_0", "2_1"))
    for key in one:
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(one[key], first[key], atol=1e-6, rtol=1e-5, msg=key)
