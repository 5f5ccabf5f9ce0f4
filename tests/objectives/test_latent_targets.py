"""Targets of a following teacher: against computations by hand; what is trained, kept and exported; collapse."""

from functools import partial

import lightning as L
import pytest
import torch
from torch.nn import functional as F

from multimodal.nn import Encoder
from multimodal.objectives import ClassAggregation, LatentTargets, MaskedPrediction
from multimodal.pretrained.from_training import model_of
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import (
    QUIET,
    beit_encoder,
    beit_modality,
    build,
    encode,
    fit,
    loader,
    mae_encoder,
    mae_modality,
    mixed_modality,
    picture_batch,
    shaken,
)

ADAM = {"optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-2)}
FAST = {"decay": 0.5, "final_decay": 0.9, "decay_steps": 4}


def latent(**settings) -> partial:
    return partial(LatentTargets, **{**FAST, **settings})


def instance(x: torch.Tensor) -> torch.Tensor:
    """Every channel over the tokens of a sequence, as data2vec 2.0 calls it."""
    return F.instance_norm(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize(
    "normalize, normal", [("instance", instance), ("layer", lambda x: F.layer_norm(x, x.shape[-1:])), ("none", lambda x: x)]
)
def test_targets_are_the_mean_of_normalised_last_layers_of_the_whole_item(normalize, normal):
    model = shaken(build(mae_encoder(), mae_modality(), [latent(top_layers=2, normalize=normalize)])).eval()
    batch, goal = picture_batch(3), model.objectives[0]
    for student in (*model.encoder.parameters(), *model.modalities.parameters()):
        student.data.add_(0.1)  # the teacher is another model by now
    targets, pooled = goal.targets(encode(model, batch))
    tokens = goal.embeds["picture"].tokens(batch.items["picture"].values, None)
    vectors = goal.embeds["picture"](tokens).view(3, 16, 16)
    _, layers = goal.teacher.forward_dense(vectors, indices=(1, 2))
    mean = sum(normal(layer[:, 1:]) for layer in layers) / 2  # without the class token
    expected = F.layer_norm(mean, mean.shape[-1:])
    torch.testing.assert_close(targets["picture"], expected.flatten(0, 1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pooled, expected.mean(1), atol=1e-5, rtol=1e-4)
    assert not targets["picture"].requires_grad


@pytest.mark.parametrize("loss, distance", [("mse", F.mse_loss), ("smooth_l1", partial(F.smooth_l1_loss, beta=0.7))])
def test_the_loss_compares_hidden_tokens_and_class_tokens(loss, distance):
    model = shaken(build(mae_encoder(), mae_modality(), [latent(loss=loss, beta=0.7, class_weight=0.3)])).eval()
    encoded, goal = encode(model, picture_batch(3)), model.objectives[0]
    view = encoded.views["picture"]
    targets, pooled = goal.targets(encoded)
    predicted = view.hidden @ goal.heads["picture"].proj.weight.T + goal.heads["picture"].proj.bias
    own = distance(predicted, targets["picture"][view.view.masked], reduction="none").mean(1)
    of_class = F.mse_loss(encoded.encoded.class_token, pooled, reduction="none").mean(1)
    term = goal(encoded)["picture"]
    assert term.count == 36 and own.shape == (36,)
    torch.testing.assert_close(term.loss / term.count, own.mean() + 0.3 * of_class.mean())


def test_the_class_tokens_of_unequal_samples_weigh_as_their_hidden_tokens():
    """So that splitting a batch changes nothing."""
    model = shaken(build(mae_encoder(), mae_modality(), [latent(class_weight=1.0)])).eval()
    whole = model.objectives[0](encode(model, picture_batch(3)))["picture"]
    parts = [model.objectives[0](encode(model, picture_batch(1, first=number)))["picture"] for number in range(3)]
    torch.testing.assert_close(whole.loss, sum(part.loss for part in parts), atol=1e-4, rtol=1e-5)


def test_the_teacher_is_the_average_of_the_student_with_growing_decay():
    model = build(mae_encoder(), mae_modality(), [latent()], **ADAM)
    pairs = [(model.objectives[0].teacher, model.encoder), (model.objectives[0].embeds["picture"], model.modalities["picture"].embed)]
    expected = [[x.double().clone() for x in student.parameters()] for _, student in pairs]
    seen = []

    def follow(*_) -> None:
        step = len(seen) + 1
        decay = 0.5 + 0.4 * min(step / 4, 1)
        for average, (_, student) in zip(expected, pairs, strict=True):
            for own, new in zip(average, student.parameters(), strict=True):
                own.mul_(decay).add_(new.detach().double(), alpha=1 - decay)
        seen.append(decay)

    model.on_train_batch_end = follow
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, **QUIET)
    trainer.fit(model, loader([picture_batch(2)] * 6))
    assert seen == pytest.approx([0.6, 0.7, 0.8, 0.9, 0.9, 0.9])
    for average, (teacher, _) in zip(expected, pairs, strict=True):
        for own, made in zip(average, teacher.parameters(), strict=True):
            torch.testing.assert_close(made.double(), own, atol=1e-6, rtol=1e-5)
            assert not made.requires_grad and made.grad is None
    assert any(not torch.equal(made, new) for made, new in zip(pairs[0][0].parameters(), pairs[0][1].parameters(), strict=True))


def test_the_teacher_moves_once_per_optimizer_step():
    calls = []
    model = build(mae_encoder(), mae_modality(), [latent()])
    model.objectives[0].after_step = lambda encoder, modalities, step: calls.append(step)
    fit(model, [picture_batch(1)] * 6, accumulate_grad_batches=3)
    assert calls == [1, 2]


def test_the_teacher_is_no_parameter_of_the_optimizer_and_never_in_training_mode():
    model = build(mae_encoder(drop_path=0.5), mae_modality(), [latent()])
    fit(model, [picture_batch(1)])
    trained = {id(x) for group in model.trainer.optimizers[0].param_groups for x in group["params"]}
    goal = model.objectives[0]
    assert not any(id(x) in trained for part in (goal.teacher, goal.embeds) for x in part.parameters())
    assert all(id(x) in trained for x in goal.heads.parameters())
    model.train()
    assert goal.training and goal.heads.training and not goal.teacher.training and not goal.embeds.training


def test_a_run_goes_on_with_its_teacher(tmp_path):
    batches = [picture_batch(2, first=number) for number in range(6)]

    def make() -> MaskedPretraining:
        torch.manual_seed(0)
        return build(mae_encoder(), mae_modality(), [latent(class_weight=0.1)], schedule=constant, **ADAM)

    whole = make()
    losses = fit(whole, batches)
    first = make()
    trainer = L.Trainer(accelerator="cpu", max_steps=3, **QUIET)
    trainer.fit(first, loader(batches[:3]))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, rest = make(), []
    second.on_train_batch_end = lambda outputs, *_: rest.append(float(outputs["loss"]))
    L.Trainer(accelerator="cpu", max_epochs=2, **QUIET).fit(second, loader(batches[3:]), ckpt_path=tmp_path / "half.ckpt")
    assert rest == losses[3:]
    for name, value in whole.state_dict().items():
        if "scores" not in name:
            assert torch.equal(value, second.state_dict()[name]), name


def constant(optimizer, _):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def test_nothing_of_it_is_taken_away():
    model = build(beit_encoder(), beit_modality(), [MaskedPrediction, latent()])
    kept = model_of(model)
    assert not any("teacher" in name or "objective" in name for name in kept.state_dict())
    assert sum(x.numel() for x in kept.encoder.parameters()) == sum(x.numel() for x in model.encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(kept.encoder.parameters(), model.encoder.parameters(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"class_weight": 0.5}, {"loss": "smooth_l1"}])
def test_it_learns(settings):
    torch.manual_seed(0)
    model = build(mae_encoder(), mae_modality(), [latent(**{**settings, "decay": 0.999, "final_decay": 0.999})], **ADAM)
    losses = fit(model, [picture_batch(4)] * 50)
    assert losses[-1] < 0.8 * losses[0]


def test_it_stands_beside_other_objectives():
    torch.manual_seed(0)
    goals = [MaskedPrediction, partial(ClassAggregation, early_layer=2), latent(decay=0.99, final_decay=0.99)]
    model = build(beit_encoder(), beit_modality(), goals, **ADAM)
    losses = fit(model, [picture_batch(4)] * 40)
    assert losses[-1] < 0.7 * losses[0]
    assert set(model.losses) == {"picture", "picture_from_class", "picture_latent"}


def test_a_collapse_stops_the_run(monkeypatch):
    monkeypatch.setattr("multimodal.objectives.latent_targets.CHECK_EVERY", 2)
    model = build(mae_encoder(), mae_modality(), [latent(min_deviation=0.05)])
    for parameter in model.objectives[0].heads.parameters():
        parameter.data.zero_()  # always says the same
    with pytest.raises(ValueError, match=r"latent targets have collapsed.*predictions 0\.0.*min_deviation 0\.05"):
        fit(model, [picture_batch(2)] * 3)


def test_what_was_said_last_is_looked_at():
    model = build(mae_encoder(), mae_modality(), [latent()]).train()
    encoded, goal = encode(model, picture_batch(3)), model.objectives[0]
    term = goal(encoded)["picture"]
    truth = goal.targets(encoded)[0]["picture"][encoded.views["picture"].view.masked]
    torch.testing.assert_close(goal.deviation, torch.stack([truth.std(0).mean(), term.ids.std(0).mean()]))


def test_weights_of_few_digits_are_refused():
    model = build(mae_encoder(), mae_modality(), [latent()])
    fit(model, [picture_batch(2)], precision="bf16-mixed")
    model.bfloat16()
    with pytest.raises(ValueError, match=r"too little for weights of torch.bfloat16: train in bf16-mixed"):
        model.objectives[0].after_step(model.encoder, dict(model.modalities), 1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"top_layers": 4}, "top_layers must be from 1 to the encoder's depth, 3; got 4"),
        ({"top_layers": 0}, "top_layers must be from 1"),
        ({"decay": 0.99}, "decay and final_decay must ascend"),
        ({"decay_steps": 0}, "in at least 1 step"),
        ({"class_weight": -1.0}, "class_weight must be at least 0"),
        ({"weight": 0.0}, "weight must be positive"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        build(mae_encoder(), mae_modality(), [latent(**settings)])


def test_class_tokens_must_be_there_and_of_one_sample():
    with pytest.raises(ValueError, match=r"needs an encoder with a class token"):
        build(Encoder(dim=16, depth=2, num_heads=2), mae_modality(), [latent(class_weight=0.1)])
    with pytest.raises(ValueError, match="mixed items share one: set it to 0"):
        build(mae_encoder(), mixed_modality(), [latent(class_weight=0.1)])


def test_sharded_weights_are_refused():
    model = build(mae_encoder(), mae_modality(), [latent()])
    model._device_mesh = object()
    with pytest.raises(ValueError, match=r"LatentTargets works on whole weights.*use DDP"):
        model.configure_model()
