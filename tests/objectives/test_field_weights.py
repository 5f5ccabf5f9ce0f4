"""Fields are weighed by the last validation, and predicted at all tokens: against computations by hand, and through a run."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.nn import functional as F

from multimodal.masking import FieldMasking, RandomMasking
from multimodal.nn import Encoder
from multimodal.objectives import MaskedPrediction, ReplacedTokenDetection
from multimodal.objectives.masked_prediction import weights_of
from multimodal.pretrained.from_training import model_of
from tests.objectives.music import SIZES, batch, model
from tests.objectives.pictures import QUIET, beit_encoder, beit_modality, build, loader, mae_encoder, mae_modality

FOLLOWING = partial(MaskedPrediction, field_weights="validation")
WHOLE = {"masking": RandomMasking(0.5)}
NAMES = ("bar", "position", "pitch", "duration")


def test_weights_are_one_over_the_accuracy_and_sum_to_one():
    equal = torch.full((4,), 0.25)
    weights = weights_of(torch.tensor([0.8, 0.4, 0.2, 0.1]), equal)
    torch.testing.assert_close(weights, torch.tensor([1.25, 2.5, 5, 10]) / 18.75)
    torch.testing.assert_close(weights_of(torch.tensor([0.5, 0.0, 0.5, 0.5]), equal)[1], torch.tensor(100 / 106))  # as if 0.01


def test_a_field_that_was_not_asked_for_keeps_its_weight():
    before = torch.tensor([0.1, 0.4, 0.3, 0.2])
    weights = weights_of(torch.tensor([0.5, torch.nan, 0.25, torch.nan]), before)
    torch.testing.assert_close(weights, torch.tensor([0.4 / 3, 0.4, 0.8 / 3, 0.2]))
    assert torch.equal(weights_of(torch.full((4,), torch.nan), before), before)


def test_the_loss_has_the_weights_of_the_last_validation():
    made, given = model([FOLLOWING], **WHOLE).eval(), batch(20, 30)
    goal = made.objectives[0]
    with torch.no_grad():
        encoded = made(given)
        view = encoded.views["music"]
        losses = [F.cross_entropy(x, t) for x, t in zip(made.modalities["music"].head(view.hidden), view.truth.unbind(1), strict=True)]
        first = goal(encoded)["music"]
        torch.testing.assert_close(first.loss / first.count, sum(losses) / 4)  # all alike at first, not by vocabulary
        goal.after_validation({f"accuracy/music_{name}": torch.tensor(x) for name, x in zip(NAMES, (1.0, 0.5, 0.25, 0.25), strict=True)})
        second = goal(made(given))["music"]
    torch.testing.assert_close(second.loss / second.count, sum(w * x for w, x in zip((1, 2, 4, 4), losses, strict=True)) / 11)


def run(made, given, epochs: int, folder, **settings) -> L.Trainer:
    quiet = {**QUIET, "accelerator": "cpu", "max_epochs": epochs, "num_sanity_val_steps": 1, "default_root_dir": folder}
    trainer = L.Trainer(**quiet)
    trainer.fit(made, loader([given]), loader([given]), **settings)
    return trainer


def test_a_run_follows_its_validations_and_a_run_that_goes_on_knows_the_last(tmp_path):
    made, given = model([FOLLOWING], **WHOLE), batch(40, 40)
    trainer = run(made, given, 1, tmp_path)
    scores = {name: float(trainer.callback_metrics[f"val/accuracy/music_{name}"]) for name in NAMES}
    expected = torch.tensor([1 / max(x, 0.01) for x in scores.values()])
    weights = made.objectives[0].field_weights_music
    torch.testing.assert_close(weights, expected / expected.sum())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = model([FOLLOWING], **WHOLE)
    again.load_state_dict(torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"])
    assert torch.equal(again.objectives[0].field_weights_music, weights)
    with torch.no_grad():
        again.objectives[0](again.eval()(given))
    assert torch.equal(again.modalities["music"].head.field_weights, weights)


def test_neither_the_first_look_nor_a_validation_alone_moves_the_weights(tmp_path):
    made = model([FOLLOWING], **WHOLE)
    L.Trainer(**QUIET, accelerator="cpu").validate(made, loader([batch(40)]), verbose=False)
    assert torch.equal(made.objectives[0].field_weights_music, torch.full((4,), 0.25))
    run(made, batch(40), 0, tmp_path)
    assert torch.equal(made.objectives[0].field_weights_music, torch.full((4,), 0.25))


def test_an_encoder_that_is_taken_away_has_no_weights_of_fields():
    kept = model_of(model([FOLLOWING], **WHOLE))
    assert not [name for name in kept.state_dict() if "field_weights" in name]


@pytest.mark.parametrize("masking", [RandomMasking(0.5), FieldMasking(RandomMasking(0.5), ["pitch"])])
def test_all_tokens_are_predicted_beside_the_hidden_ones(masking):
    made, given = model([partial(MaskedPrediction, everywhere=0.15, weight=2.0)], masking=masking).eval(), batch(20, 30)
    with torch.no_grad():
        encoded = made(given)
        terms = made.objectives[0](encoded)
        logits = made.modalities["music"].head(encoded.encoded.tokens)
    truth, masked = given.items["music"].values, encoded.views["music"].view.masked
    losses = [F.cross_entropy(x, t, reduction="none") for x, t in zip(logits, truth.unbind(1), strict=True)]
    everywhere = sum(size * x for size, x in zip(SIZES, losses, strict=True)) / sum(SIZES)
    hidden = everywhere[masked] if isinstance(masking, RandomMasking) else losses[2][masked]
    assert set(terms) == {"music", "music_everywhere"} and terms["music_everywhere"].count == 50 and terms["music"].count == masked.sum()
    torch.testing.assert_close(terms["music_everywhere"].loss, everywhere.sum())
    torch.testing.assert_close(terms["music"].loss, hidden.sum())
    assert (terms["music"].weight, terms["music_everywhere"].weight) == (2.0, 0.3)
    made._terms(given, "val")
    assert {"accuracy/music_everywhere", "accuracy/music_everywhere_pitch"} <= set(made.scores["val_scores"].compute())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model([partial(MaskedPrediction, everywhere=-1.0)]), "everywhere must be at least 0, got -1.0"),
        (
            lambda: build(mae_encoder(), mae_modality(), [partial(MaskedPrediction, everywhere=0.1)]),
            "a decoder predicts modality 'picture'",
        ),
        (lambda: build(beit_encoder(), beit_modality(), [FOLLOWING]), "no modality predicts several"),
        (
            lambda: model([FOLLOWING, partial(ReplacedTokenDetection, generator=Encoder(8, 1, 2))]),
            "would report 'music' twice",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_ways_to_weigh_are_refused(unchecked):
    with pytest.raises(ValueError, match="field_weights must be one of head, validation, got 'training'"):
        model([partial(MaskedPrediction, field_weights="training")])
