"""A linear classifier on each layer: each learns as if alone, and the layer is chosen on the validation split."""

from dataclasses import replace
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch

from multimodal.batch import Item, Sample, collate
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.image import ImageTransform, PatchEmbed
from multimodal.training import LayerProbing
from multimodal.training.callbacks import PredictionWriter

SGD = {
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.5),
    "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def make(make_classifier):
    """The modalities of the classifier in ``conftest.py``."""

    def make(encoder=None, **settings) -> LayerProbing:
        classifier = make_classifier(encoder=encoder)
        embeds = {name: partial(Input, transform=x.transform, embed=x.embed, expert=x.expert) for name, x in classifier.modalities.items()}
        torch.manual_seed(1)
        return LayerProbing(classifier.encoder, embeds, 3, **settings)

    return make


def fit(model, loader, val=None, **settings) -> L.Trainer:
    trainer = L.Trainer(accelerator="cpu", max_epochs=settings.pop("max_epochs", 1), **QUIET, **settings)
    trainer.fit(model, loader, val if val is not None else loader)
    return trainer


def weights(model) -> dict[str, torch.Tensor]:
    return {name: x.detach().clone() for name, x in model.named_parameters()}


@pytest.mark.parametrize("encoder", [{}, {"class_token": True, "num_registers": 1}, {"num_experts": 2, "class_token": True}])
def test_only_the_classifiers_learn(make, labelled_samples, loader, encoder):
    model = make(encoder=encoder, **SGD)
    start = weights(model)
    fit(model, loader([labelled_samples] * 2))
    moved = {name for name, x in weights(model).items() if not torch.equal(x, start[name])}
    assert moved == {f"probes.layer_0{layer}.proj.{part}" for layer in range(2) for part in ("weight", "bias")}


def test_the_frozen_parts_are_in_evaluation_mode_from_the_start(make, labelled_samples, loader):
    model = make(encoder={"drop_path": 0.5})
    modes = []
    model.encoder.register_forward_hook(lambda *_: None)
    model.on_train_batch_start = lambda *_: modes.append((model.training, model.encoder.blocks[1].training, model.probes.training))
    fit(model, loader([labelled_samples] * 2), max_epochs=2)
    assert modes == [(True, False, True)] * 4
    batch = collate(labelled_samples)
    assert torch.equal(model.vectors(batch)[0]["layer_01"], model.vectors(batch)[0]["layer_01"])


def test_each_classifier_learns_as_if_it_were_alone(make, labelled_samples, loader):
    together = make(**SGD)
    for layer in range(2):
        alone = make(layers=[layer], **SGD)
        alone.probes[f"layer_0{layer}"].load_state_dict(together.probes[f"layer_0{layer}"].state_dict())
        fit(alone, loader([labelled_samples] * 3))
        copy = make(**SGD)
        copy.load_state_dict(together.state_dict())
        fit(copy, loader([labelled_samples] * 3))
        for part in ("weight", "bias"):
            ours, own = (getattr(model.probes[f"layer_0{layer}"].proj, part) for model in (copy, alone))
            torch.testing.assert_close(ours, own)
            assert not torch.equal(own, getattr(together.probes[f"layer_0{layer}"].proj, part))


def test_the_loss_is_the_sum_over_labelled_samples_and_layers(make, labelled_samples):
    model = make().train()
    model.log = lambda *args, **kwargs: None
    batch = collate(labelled_samples)
    chosen = batch.labels["label"] >= 0
    logits = model(batch).values()
    expected = sum(torch.nn.functional.cross_entropy(x[chosen], batch.labels["label"][chosen], reduction="sum") for x in logits)
    torch.testing.assert_close(model.training_step(batch, 0), expected)
    assert model._predictions[0] == int(chosen.sum())  # once, whatever the number of layers


def test_accumulated_batches_equal_one_large_batch(make, labelled_samples, loader):
    parts = [labelled_samples[:1], labelled_samples[1:6], labelled_samples[6:], []]
    whole, accumulated = make(**SGD), make(**SGD)
    fit(whole, loader([labelled_samples]))
    fit(accumulated, loader(parts), val=loader([labelled_samples]), accumulate_grad_batches=4)
    for name, x in weights(whole).items():
        torch.testing.assert_close(x, weights(accumulated)[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("encoder, vector, width", [({}, "class_and_mean", 16), ({"class_token": True}, "class_and_mean", 32)])
def test_a_classifier_reads_class_token_and_mean(make, labelled_samples, encoder, vector, width):
    model = make(encoder=encoder, vector=vector)
    vectors, present = model.vectors(collate([*labelled_samples, replace(labelled_samples[0], items={})]))
    assert vectors["layer_00"].shape == (9, width) and present.tolist() == [True] * 8 + [False]
    assert (vectors["layer_01"][8] == 0).all()
    alone, _ = model.vectors(collate([labelled_samples[2]]))
    torch.testing.assert_close(alone["layer_01"][0], vectors["layer_01"][2], atol=1e-5, rtol=1e-4)


def test_first_weights_are_those_of_beit():
    torch.manual_seed(0)
    build = partial(Input, transform=ImageTransform(size=32), embed=PatchEmbed)
    model = LayerProbing(Encoder(dim=192, depth=2, num_heads=3), {"picture": build}, 1000)
    assert float(model.probes["layer_01"].proj.weight.std()) == pytest.approx(0.01, rel=0.02)
    assert (model.probes["layer_01"].proj.bias == 0).all()


def test_batch_norm_standardises_the_labelled_samples(make, labelled_samples, loader):
    model = make(batch_norm=True, **SGD)
    probe, x = model.probes["layer_00"], torch.randn(50, 16) * 7 + 3
    assert [name for name, _ in probe.named_parameters()] == ["proj.weight", "proj.bias"]
    standard = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(probe(x), probe.proj(standard), atol=1e-4, rtol=1e-4)
    assert probe(x[:1]).isfinite().all() and probe(x[:0]).shape == (0, 3)
    fit(model, loader([labelled_samples[:1], labelled_samples]))
    assert int(probe.norm.num_batches_tracked) >= 2


def telling(count: int, bright: bool) -> list[Sample]:
    """Pictures whose class is their brightness, or nothing."""
    generator = torch.Generator().manual_seed(count)
    labels = [number % 3 for number in range(count)]
    pixels = [torch.randint(20, (1, 16, 16), generator=generator) + (80 * label if bright else 0) for label in labels]
    items = [{"picture": Item(x.to(torch.uint8))} for x in pixels]
    return [Sample(f"{number}", own, {"label": label}) for number, (own, label) in enumerate(zip(items, labels, strict=True))]


def test_the_layer_is_chosen_on_the_validation_split_and_scored_on_the_test_split(make, loader, tmp_path):
    """A layer whose classifier is spoilt before the test stays the chosen one, though another is better there."""
    model = make(optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.05))
    data = loader([telling(30, True)])
    trainer = fit(model, loader([telling(30, True)] * 60), val=data)
    scores = trainer.callback_metrics
    best = int(model.best_layer)
    assert float(scores["val/accuracy"]) == max(float(scores[f"val/accuracy/layer_0{layer}"]) for layer in range(2)) > 0.9
    assert scores["val/best_layer"] == best and scores["val/samples"] == 30
    saved = tmp_path / "a.ckpt"
    trainer.save_checkpoint(saved)
    again = make()
    again.load_state_dict(torch.load(saved, weights_only=True)["state_dict"])
    again.probes[f"layer_0{best}"].proj.weight.data.zero_()
    tested = L.Trainer(accelerator="cpu", **QUIET).test(again, data, verbose=False)[0]
    assert tested["test/best_layer"] == best and tested["test/accuracy"] == tested[f"test/accuracy/layer_0{best}"] < 0.5
    assert tested[f"test/accuracy/layer_0{1 - best}"] > 0.9


def test_a_model_that_was_never_validated_has_no_best_layer(make, labelled_samples, loader):
    tested = L.Trainer(accelerator="cpu", **QUIET).test(make(), loader([labelled_samples]), verbose=False)[0]
    assert set(tested) == {"test/accuracy/layer_00", "test/accuracy/layer_01", "test/samples"}
    with pytest.raises(ValueError, match="no validation has chosen a layer yet"):
        L.Trainer(accelerator="cpu", **QUIET).predict(make(), loader([labelled_samples]))


def test_several_layers_need_a_validation_split(make, labelled_samples, loader):
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, **QUIET)
    with pytest.raises(ValueError, match="several layers need a validation split"):
        trainer.fit(make(), loader([labelled_samples]))
    one = make(layers=[-1])
    L.Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(one, loader([labelled_samples]))
    assert list(one.probes) == ["layer_01"] and one.best_layer == 0


def test_the_sanity_check_chooses_nothing(make, labelled_samples, loader):
    model = make()
    seen = []
    model.on_train_start = lambda: seen.append(int(model.best_layer))
    fit(model, loader([labelled_samples]))
    assert seen == [-1]


def test_predictions_are_those_of_the_chosen_layer(make, labelled_samples, loader, tmp_path):
    model = make()
    model.best_layer.fill_(1)
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.predict(model, loader([labelled_samples[:3], [], labelled_samples[3:]]), return_predictions=False)
    probabilities, ids = (np.load(tmp_path / f"predictions/{name}.npy") for name in ("label", "label_ids"))
    expected = model.eval()(collate(labelled_samples))["layer_01"].softmax(1).detach().numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert (ids == probabilities.argmax(1)).all()


@pytest.mark.parametrize("present", ["all", "none"])
def test_every_classifier_has_a_gradient(make, labelled_samples, present):
    model = make()
    model.log = lambda *args, **kwargs: None
    loss = model.training_step(collate(labelled_samples if present == "all" else []), 0)
    loss.backward()
    assert all(p.grad is not None for p in model.probes.parameters()) and (loss > 0) == (present == "all")


def test_settings_that_do_not_fit_are_refused(make, labelled_samples, loader):
    for settings, message in (
        ({"layers": [2]}, "layers must be 'all' or some of -2 to 1 and 'out', got .2."),
        ({"vector": "class"}, "vector 'class' needs an encoder with a class token"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**settings)
    wrong = [replace(labelled_samples[0], labels={"label": 3})]
    with pytest.raises(ValueError, match="sample 'sample0' has label 3, num_classes is 3: allowed are 0 to 2, and -1 for no label"):
        fit(make(), loader([wrong]))
