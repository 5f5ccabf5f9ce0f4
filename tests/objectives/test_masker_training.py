"""Maskings that learn, inside a model: what they hide, what their error is, what they remember, for pictures, texts and music."""

from functools import partial

import lightning as L
import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.masking import AdversarialMasking, Drop, MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Decoder, Encoder, LearnedPosition, RotaryPosition
from multimodal.objectives import ClassAggregation, LatentTargets, MaskedPrediction, MaskerTraining, ReplacedTokenDetection
from multimodal.pretrained.from_training import model_of
from multimodal.tokenizers.text import ByteTokenizer, TextEmbed, TextTransform
from multimodal.training import FusedAdamW, MaskedPretraining
from multimodal.training.checkpoint_files import CheckpointFiles, read_checkpoint
from tests.objectives.music import batch as music_batch
from tests.objectives.music import model as music_model
from tests.objectives.pictures import QUIET, beit_encoder, beit_modality, build, fit, loader, mae_encoder, mae_modality, picture_batch
from tests.training.conftest import build_model, make_sample

QUICK = {"optimizer": partial(FusedAdamW, lr=1e-2), "schedule": lambda made, _: torch.optim.lr_scheduler.ConstantLR(made, 1.0)}
MASKING = AdversarialMasking(mask_ratio=0.4, shares=(0.3, 0.4), dropout=0.0)


def pictures(masking=MASKING, **settings) -> MaskedPretraining:
    torch.manual_seed(0)
    return build(beit_encoder(), beit_modality(masking=masking), **QUICK, **settings)


class Marked(ByteTokenizer):
    """Bytes between marks."""

    start_ids, end_ids = (1,), (0,)


def text_model(masking) -> MaskedPretraining:
    torch.manual_seed(0)
    embed = partial(TextEmbed, mask_id=2, position=partial(LearnedPosition, size=[40]))
    part = partial(Modality, transform=TextTransform(Marked(), max_tokens=40), embed=embed, masking=masking, corruption=MaskReplaceKeep())
    return MaskedPretraining(Encoder(dim=32, depth=2, num_heads=2, rotary=RotaryPosition), {"bytes": part}, **QUICK)


def texts(count: int, first: int = 0):
    """Every second byte is always the same, the others are any of twenty."""
    samples = []
    for number in range(first, first + count):
        values = torch.randint(100, 120, (30,), generator=torch.Generator().manual_seed(number))
        values[::2] = 99
        samples.append(Sample(f"text{number}", {"bytes": Item(Marked().mark(values), ragged=True)}, seed=number))
    return collate(samples)


def memory_of(model: MaskedPretraining) -> dict[str, torch.Tensor]:
    return model.objectives[-1].memory()


def test_a_user_names_the_masking_and_the_rest_follows():
    model = pictures()
    assert [type(goal) for goal in model.objectives] == [MaskedPrediction, MaskerTraining]
    assert [type(goal) for goal in pictures(objectives=[MaskerTraining, MaskedPrediction]).objectives] == [MaskerTraining, MaskedPrediction]
    assert sum(x.numel() for x in model.objectives.parameters()) == 16 * 256 + 256 + 256 + 1
    assert not [name for name in model_of(model).state_dict() if "masker" in name]


@pytest.mark.parametrize("fields", [None, ["pitch"], ["position", "duration"]])
def test_the_error_of_the_scores_is_that_computed_item_by_item(fields):
    masking = AdversarialMasking(mask_ratio=0.4, shares=(0.3, 0.4), dropout=0.0, fields=fields)
    model, given = music_model([MaskedPrediction], masking=masking).train(), music_batch(20, 9, 33)
    encoded = model(given)
    prediction, masker = (goal(encoded)["music"] for goal in model.objectives)
    view = encoded.views["music"].view
    clean = model.modalities["music"].embed.tokens(given.items["music"].values, given.items["music"].lengths)
    plain = model.encoder(model.modalities["music"].embed(clean), given.items["music"].sample[clean.item], clean.coordinates).tokens
    scores = model.objectives[1].maskers["music"](plain).detach()
    torch.testing.assert_close(view.scores.detach(), scores)
    losses = torch.full((62,), torch.nan)
    losses[view.masked] = encoded.views["music"].prediction.loss.detach()
    total, count, right, asked = 0.0, 0, 0, 0
    for own in torch.arange(62).split([20, 9, 33]):
        hidden = own[view.masked[own]]
        best = scores[own].topk(len(hidden)).indices + own[0]
        assert sorted(best.tolist()) == hidden.tolist()
        changed = [i for i in hidden.tolist() if view.corrupted[i]]
        changed.sort(key=lambda i: float(losses[i]))
        few = min(max(1, round(0.3 * len(hidden))), len(changed) // 2)
        if not few:
            continue
        low, high = changed[:few], changed[-few:]
        errors = [float(scores[i]) ** 2 for i in low] + [(1 - float(scores[i])) ** 2 for i in high]
        total += sum(errors) / len(errors) * len(hidden)
        count, asked = count + len(hidden), asked + 2 * few
        right += sum(float(scores[i]) <= 0.5 for i in low) + sum(float(scores[i]) > 0.5 for i in high)
    assert masker.loss.item() == pytest.approx(total, rel=1e-5) and count == masker.count == prediction.count
    assert masker.correct.tolist() == [right] and masker.asked.tolist() == [asked] and masker.weight == prediction.weight == 1.0


def test_of_chosen_tokens_only_the_named_fields_are_hidden_and_predicted():
    masking = AdversarialMasking(mask_ratio=0.4, shares=(0.3, 0.4), fields=["pitch"])
    model, given = music_model([MaskedPrediction], masking=masking, corruption=MaskReplaceKeep(1.0, 0.0)), music_batch(20, 9, 33)
    for mode in (True, False):
        encoded = model.train(mode)(given)
        view, prediction = encoded.views["music"].view, encoded.views["music"].prediction
        assert torch.equal(view.shown_as_mask, view.masked[:, None] & torch.tensor([False, False, True, False]))
        assert prediction.asked.sum(0).tolist() == [0, 0, int(view.masked.sum()), 0] and view.masked.any()
        assert torch.equal(view.chosen, view.masked) if mode else not hasattr(view, "chosen")


def test_what_was_changed_is_what_is_shown_otherwise():
    view = text_model(MASKING).train()(texts(50)).views["bytes"].view
    clean = texts(50).items["bytes"].values
    assert torch.equal(view.corrupted, view.shown_as_mask | (view.tokens.inputs != clean))
    kept = view.masked & ~view.corrupted
    assert kept.sum() / view.masked.sum() == pytest.approx(0.1, abs=0.05)
    assert not (view.masked & view.tokens.marks).any()  # padding and marks are never hidden


def test_scores_weights_and_the_reach_of_gradients():
    wanted = {}
    for reach in (True, False):
        masking = AdversarialMasking(0.4, shares=(0.3, 0.4), dropout=0.0, weight=3.0, reach_encoder=reach)
        model = music_model([MaskedPrediction], masking=masking).train()
        term = model.objectives[1](model(music_batch(20, 30)))["music"]
        assert term.weight == 3.0
        term.loss.backward()
        assert all(x.grad.abs().sum() > 0 for x in model.objectives[1].parameters())
        wanted[reach] = [name for name, x in model.named_parameters() if x.grad is not None and "maskers" not in name]
    assert wanted[False] == [] and any(name.startswith("encoder") for name in wanted[True])
    assert not any("head" in name for name in wanted[True])


@pytest.mark.parametrize("reach", [True, False])
def test_in_bfloat16_all_parts_learn_as_in_float32(reach):
    gradients = []
    for lower in (False, True):
        masking = AdversarialMasking(0.4, shares=(0.3, 0.4), dropout=0.0, reach_encoder=reach)
        model = music_model([MaskedPrediction], masking=masking).train()
        model.log = lambda *args, **kwargs: None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
            loss = model.training_step(music_batch(20, 30), 0)
            assert model(music_batch(20)).views["music"].view.scores.dtype == torch.float32
        loss.backward()
        gradients.append({name: x.grad for name, x in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradients[1][name] is not None and gradients[1][name].isfinite().all()
        assert gradients[1][name].norm() == pytest.approx(gradient.norm().item(), rel=0.5, abs=0.05), name


@pytest.mark.parametrize("stage", ["eval", "train"])
def test_in_evaluation_nothing_is_learned_and_hiding_is_random(stage):
    model, plain = pictures(), pictures(RandomMasking(0.4))
    other = {name: x for name, x in model.state_dict().items() if "objectives" not in name}
    plain.load_state_dict(other, strict=False)
    for made in (model, plain):
        getattr(made, stage)()
    with torch.no_grad():
        one, two = (made._terms(picture_batch(4), "val") for made in (model, plain))
    if stage == "eval":
        assert one.keys() == two.keys() and torch.equal(one["picture", 0].loss, two["picture", 0].loss)
    else:
        assert ("picture_masker", 1) in one and not torch.equal(one["picture", 0].loss, two["picture", 0].loss)
    assert memory_of(model)["picture/rows"].numel() == 0


def test_pictures_are_learned():
    """Each picture is of one brightness, so that hidden patches follow from shown ones."""
    values = [torch.full((1, 16, 16), 37 * number % 256, dtype=torch.uint8) for number in range(7)]
    given = collate([Sample(str(number), {"picture": Item(value)}, seed=number) for number, value in enumerate(values)])
    model = pictures()
    losses = fit(model, [given] * 40)
    assert losses[-1] < 0.5 * losses[0] and all(x.isfinite().all() for x in model.parameters())


def test_the_masker_of_texts_learns_what_cannot_be_predicted():
    model = text_model(AdversarialMasking(0.5, shares=(0.5, 0.5), book_every=None))
    fit(model, [texts(16, 16 * step) for step in range(60)])
    with torch.no_grad():
        view = model.train()(texts(50, 5000)).views["bytes"].view
    scores = view.scores.view(50, 32)[:, 1:-1]
    same, random = scores[:, ::2].mean(), scores[:, 1::2].mean()
    assert random > same + 0.3
    hidden = view.masked.view(50, 32)[:, 1:-1]
    assert hidden[:, 1::2].sum() > 5 * hidden[:, ::2].sum()


def test_tokens_that_are_dropped_are_chosen_too():
    torch.manual_seed(0)
    decoder = partial(Decoder, width=8, depth=1, num_heads=2)
    model = build(
        mae_encoder(), mae_modality(masking=AdversarialMasking(0.75, shares=(0.75, 0.75)), corruption=Drop(), decoder=decoder), **QUICK
    )
    view = model.train()(picture_batch(3)).views["picture"].view
    assert (
        torch.equal(view.chosen, view.masked)
        and torch.equal(view.corrupted, ~view.visible)
        and view.masked.view(3, 16).sum(1).tolist() == [12] * 3
    )
    losses = fit(model, [picture_batch(8)] * 10)
    assert losses[-1] < losses[0]


def run(model, batches, folder, epochs: int, **settings) -> L.Trainer:
    trainer = L.Trainer(**{**QUIET, "accelerator": "cpu", "max_epochs": epochs, "default_root_dir": folder}, plugins=[CheckpointFiles()])
    trainer.fit(model, loader(batches), **settings)
    return trainer


def test_a_run_that_goes_on_has_the_same_book_and_the_same_weights(tmp_path):
    masking = AdversarialMasking(0.4, shares=(0.3, 0.4), dropout=0.0, book_every=2)
    batches = [picture_batch(3), picture_batch(3, first=3)]
    whole, first, second = (pictures(masking) for _ in range(3))
    run(whole, batches, tmp_path, 5)
    run(first, batches, tmp_path, 3).save_checkpoint(tmp_path / "x.ckpt")
    saved = read_checkpoint(tmp_path / "x.ckpt")["objectives"]["1"]
    assert set(saved) == {"picture/keys", "picture/key_lengths", "picture/rows", "picture/row_lengths"}
    assert saved["picture/rows"].numel() == 6 * 2 and bytes(saved["picture/keys"].tolist()) == b"".join(
        f"picture{i}".encode() for i in range(6)
    )
    run(second, batches, tmp_path, 5, ckpt_path=tmp_path / "x.ckpt")
    for name, tensor in memory_of(whole).items():
        assert torch.equal(memory_of(second)[name], tensor), name
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, msg=name)
    assert (memory_of(whole)["picture/rows"] != saved["picture/rows"]).any()  # the fourth epoch changed it


def test_closed_places_are_not_hidden_any_more():
    model = pictures(AdversarialMasking(0.4, shares=(0.3, 0.4), dropout=0.0, book_every=1, close=(0.5, 0.5), reopen=0.0)).train()
    before = model(picture_batch(4)).views["picture"].view
    after = model(picture_batch(4)).views["picture"].view
    closed = model.objectives[1].books["picture"].closed([f"picture{i}" for i in range(4)], [16] * 4)
    assert closed.view(4, 16).sum(1).tolist() == [12] * 4  # 8, then half of the 8 that were left
    assert torch.equal(before.scores, after.scores) and not (before.masked & after.masked).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build(mae_encoder(), mae_modality(masking=MASKING, clones=2)),
            "hides an item in one way: set clones of modality 'picture' to 1",
        ),
        (lambda: pictures(objectives=[LatentTargets]), "AdversarialMasking learns from the losses of MaskedPrediction"),
        (
            lambda: music_model([partial(ReplacedTokenDetection, generator=Encoder(8, 1, 2))], masking=MASKING),
            "learns from the losses of MaskedPrediction: name it among the objectives",
        ),
        (lambda: MaskerTraining(beit_encoder(), pictures(RandomMasking())._modalities), "needs a modality whose masking learns"),
    ],
)
def test_what_does_not_go_together_says_so(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_modalities_and_objectives_stand_beside_it():
    toy = build_model()
    torch.manual_seed(0)
    parts = {"picture": beit_modality(masking=MASKING), "pairs": lambda dim: toy.modalities["pairs"]}
    goals = [MaskedPrediction, partial(ClassAggregation, early_layer=2, depth=1)]
    encoder = Encoder(dim=16, depth=3, num_heads=2, class_token=True)
    model = MaskedPretraining(encoder, parts, goals, **QUICK)
    names = [("picture", "pairs"), ("pairs",), ("picture",)]
    samples = [make_sample(number, *own) for number, own in enumerate(names)]
    fit(model, [collate(samples), collate(samples[1:2]), collate([])])
    terms = model.train()._terms(collate(samples), "train")
    assert {name for name, _ in terms} == {"picture", "pairs", "picture_from_class", "pairs_from_class", "picture_masker"}
    assert all(term.loss.isfinite() for term in terms.values())
