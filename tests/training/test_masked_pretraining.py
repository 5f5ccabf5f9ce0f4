"""Pretraining: exact means over uneven parts, frozen tokenizers, absent modalities."""

from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch

from multimodal.batch import collate
from multimodal.nn import Prediction
from multimodal.objectives import MaskedPrediction, Objective, Term
from multimodal.training.encoder_training import weighted_sums
from tests.ranks import run_script

SGD = {
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
}


def fit(model, loader, **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_epochs=1, **quiet, **settings).fit(model, loader)
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point() and "scores" not in name}


@pytest.mark.parametrize("clip", [None, 0.05])  # gradients are clipped after they are divided by the number of predictions
def test_accumulated_batches_equal_one_large_batch(make_model, mixed_samples, loader, clip):
    # the parts differ in size and in modalities: a mean of means would not agree
    parts = [mixed_samples[:1], mixed_samples[1:6], mixed_samples[6:]]
    whole = fit(make_model(**SGD), loader([mixed_samples]), gradient_clip_val=clip)
    accumulated = fit(make_model(**SGD), loader(parts), accumulate_grad_batches=3, gradient_clip_val=clip)
    start = make_model().state_dict()
    assert any(not torch.equal(whole[name], start[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(whole[name], accumulated[name], atol=1e-6, rtol=1e-5)


def test_loss_is_the_weighted_mean_over_all_predictions(make_model, mixed_samples):
    model = make_model().eval()
    terms = model.objectives[0](model(collate(mixed_samples)))
    total, count = weighted_sums(terms.values())
    picture, pairs = terms["picture"], terms["pairs"]
    torch.testing.assert_close(total / count, (picture.loss + 0.5 * pairs.loss) / (picture.count + 0.5 * pairs.count))


def test_predictions_do_not_depend_on_the_batch(make_model, mixed_samples):
    model = make_model().eval()
    everything = model(collate(mixed_samples)).views["pairs"]
    shuffled = model(collate([mixed_samples[i] for i in (7, 2, 6, 1, 4)])).views["pairs"]
    alone = model(collate([mixed_samples[4]])).views["pairs"]
    for view, number in ((everything, 4), (shuffled, 4)):
        own = view.view.sequence == number
        assert torch.equal(view.view.masked[own], alone.view.masked)
        torch.testing.assert_close(view.hidden[own[view.view.masked]], alone.hidden, atol=1e-5, rtol=1e-4)


def test_items_of_one_sample_see_each_other(make_model, mixed_samples):
    model = make_model().eval()
    both = model(collate([mixed_samples[2]]))
    changed = mixed_samples[2].items["pairs"].values.flip(0)
    other = collate([mixed_samples[2]])
    other.items["pairs"].values.copy_(changed)
    assert not torch.allclose(both.views["picture"].hidden, model(other).views["picture"].hidden, atol=1e-4)


def test_the_clipped_step_has_the_wanted_length(make_model, mixed_samples, loader):
    start = {name: p.detach().clone() for name, p in make_model().named_parameters() if p.requires_grad}
    model = make_model(**SGD)
    fit(model, loader([mixed_samples]), gradient_clip_val=0.05)
    moved = torch.cat([(p.detach() - start[name]).flatten() for name, p in model.named_parameters() if name in start])
    assert moved.norm().item() == pytest.approx(0.1 * 0.05, rel=1e-3)  # learning rate times clipped norm


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_loss_falls_on_a_fixed_batch(make_model, mixed_samples, loader, precision):
    model = make_model(optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    losses = []
    model.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
    fit(model, loader([mixed_samples] * 60), precision=precision)
    assert losses[-1] < 0.4 * losses[0]


def test_tokenizer_stays_frozen_and_in_evaluation_mode(make_model, mixed_samples, loader):
    model = make_model(**SGD)
    before = model.modalities["picture"].tokenizer.fingerprint()
    fit(model, loader([mixed_samples] * 3))
    tokenizer = model.modalities["picture"].tokenizer
    assert tokenizer.fingerprint() == before
    model.train()
    assert not tokenizer.training and model.modalities["picture"].embed.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_an_absent_modality_keeps_its_weights_but_has_gradients(make_model, mixed_samples):
    model = make_model()
    model._trainer = None
    batch = collate([sample for sample in mixed_samples if set(sample.items) == {"pairs"}])
    model.log = lambda *args, **kwargs: None
    model.training_step(batch, 0).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all((p.grad == 0).all() for p in model.modalities["picture"].parameters() if p.requires_grad)


def test_features_ignore_other_modalities_and_samples(make_model, mixed_samples):
    model = make_model().eval()
    batch = collate(mixed_samples)
    features = model.features(batch, "picture")
    assert features.shape == (8, 16)
    assert (features[1] == 0).all()  # it has no picture
    torch.testing.assert_close(features[5:6], model.features(collate([mixed_samples[5]]), "picture"), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(features, model.features(batch, "picture", layer=0))


def test_validation_scores_are_exact_over_uneven_batches(make_model, mixed_samples, loader):
    model = make_model()
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    whole = trainer.validate(model, loader([mixed_samples]), verbose=False)[0]
    parts = trainer.validate(model, loader([mixed_samples[:3], mixed_samples[3:]]), verbose=False)[0]
    assert whole == pytest.approx(parts, rel=1e-5)
    assert {"val/loss/picture", "val/accuracy/pairs", "val/accuracy/pairs_left", "val/tokens/pairs"} <= set(whole)


def test_two_processes_with_unequal_and_missing_modalities_equal_one(tmp_path):
    """Rank 0 gets pictures only, rank 1 the rest; the weights after the steps must be those of one process with all samples."""
    script = Path(__file__).parent / "ddp_script.py"
    for ranks in (1, 2):
        run_script(script, str(tmp_path), str(ranks), ranks=ranks)
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    for name in one:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(one[name], first[name], atol=1e-6, rtol=1e-5, msg=name)


class Firsts(Objective):
    """Reads what became of the first token of each item, and hides nothing but the last one."""

    suffix = "_firsts"
    sees_all = True

    def shown(self, batch, views, encoder):
        return {
            name: replace(view, masked=view.tokens.position == view.tokens.lengths[view.tokens.item] - 1) for name, view in views.items()
        }

    def forward(self, encoded):
        self.firsts = {name: view.seen[view.view.tokens.position == 0] for name, view in encoded.views.items()}
        self.hidden = {name: len(view.hidden) for name, view in encoded.views.items()}
        return {name: Term.of(Prediction(x.square().mean(1), x, x.new_zeros(len(x), 0) > 0), 1.0) for name, x in self.firsts.items()}


def test_an_objective_may_change_what_is_hidden_and_read_tokens_that_are_not(make_model, mixed_samples):
    model = make_model(objectives=[MaskedPrediction, Firsts]).eval()
    encoded = model(collate(mixed_samples))
    terms = model.objectives[1](encoded)
    goal = model.objectives[1]
    counts = {name: len(items) for name, items in collate(mixed_samples).items.items()}
    assert goal.hidden == counts == {name: int(term.count) for name, term in terms.items()}
    for view in encoded.views.values():
        torch.testing.assert_close(view.hidden, view.seen[view.view.masked])
        assert len(view.seen) == len(view.view.tokens.inputs)
