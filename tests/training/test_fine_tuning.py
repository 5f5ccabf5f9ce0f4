"""Fine-tuning: exact means over labels, samples without labels, frozen layers, several modalities and heads."""

from dataclasses import replace
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from multimodal.batch import collate
from multimodal.heads import ClassificationHead
from multimodal.modality import Input, Modality
from multimodal.nn import Encoder, LayerNorm
from multimodal.tokenizers.image import ImageTransform, PatchEmbed
from multimodal.training import FineTuning
from multimodal.training.callbacks import PredictionWriter
from multimodal.training.scores import ClassScores

SGD = {
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def fit(model, loader, **settings):
    L.Trainer(accelerator="cpu", max_epochs=1, **QUIET, **settings).fit(model, loader)
    return {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point() and "scores" not in name}


def step(model, batch):
    model.log = lambda *args, **kwargs: None
    return model.training_step(batch, 0)


@pytest.mark.parametrize("encoder", [{}, {"class_token": True}, {"num_experts": 2, "class_token": True, "num_registers": 1}])
def test_accumulated_batches_equal_one_large_batch(make_classifier, labelled_samples, loader, encoder):
    # the parts differ in size, modalities and labels: a mean of means would not agree
    parts = [labelled_samples[:1], labelled_samples[1:6], labelled_samples[6:]]
    whole = fit(make_classifier(encoder=encoder, **SGD), loader([labelled_samples]))
    accumulated = fit(make_classifier(encoder=encoder, **SGD), loader(parts), accumulate_grad_batches=3)
    start = make_classifier(encoder=encoder).state_dict()
    assert any(not torch.equal(whole[name], start[name]) for name in whole)
    for name in whole:
        torch.testing.assert_close(whole[name], accumulated[name], atol=1e-6, rtol=1e-5)


def test_the_loss_is_the_sum_over_labelled_samples(make_classifier, labelled_samples):
    model = make_classifier(label_smoothing=0.2).eval()
    batch = collate(labelled_samples)
    labels = batch.labels["label"]
    assert (labels == -1).any() and (labels >= 0).any()
    logits = model(batch)["label"]
    chosen = labels >= 0
    target = F.one_hot(labels[chosen], 3) * 0.8 + 0.2 / 3
    torch.testing.assert_close(step(model, batch), -(target * logits[chosen].log_softmax(1)).sum())


def test_a_sample_without_a_label_changes_nothing(make_classifier, labelled_samples):
    model = make_classifier()
    step(model, collate(labelled_samples)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    step(model, collate([sample for sample in labelled_samples if sample.labels])).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "class", "first", "special"])
def test_logits_of_a_sample_do_not_depend_on_the_batch(make_classifier, labelled_samples, pool):
    model = make_classifier(encoder={"class_token": True}, head={"pool": pool}).eval()
    whole = model(collate(labelled_samples))["label"]
    for number in (0, 2, 7):
        torch.testing.assert_close(model(collate([labelled_samples[number]]))["label"][0], whole[number], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_a_sample_without_items_counts_for_nothing(make_classifier, labelled_samples, pool):
    model = make_classifier(encoder={"class_token": True}, head={"pool": pool})
    expected = step(model, collate(labelled_samples[:3]))
    emptied = [replace(sample, items={}) for sample in labelled_samples[4:6]]
    assert all(sample.labels for sample in emptied)
    batch = collate([*labelled_samples[:3], *emptied])
    assert model(batch)["label"].shape == (5, 3)
    torch.testing.assert_close(step(model, batch), expected)
    assert model.predict_step(batch, 0)["label"][0] == ["sample0", "sample1", "sample2"]


def test_all_modalities_of_a_sample_are_pooled_together(make_classifier, labelled_samples):
    model = make_classifier().eval()
    both = model(collate([labelled_samples[2]]))["label"]
    for name in ("picture", "pairs"):
        changed = collate([labelled_samples[2]])
        changed.items[name].values.copy_(changed.items[name].values.flip(-1 if name == "picture" else 0))
        assert not torch.allclose(model(changed)["label"], both, atol=1e-5)


@pytest.mark.parametrize("present", ["all", "picture", "none"])
@pytest.mark.parametrize("encoder", [{}, {"num_experts": 2, "class_token": True}])
def test_every_parameter_has_a_gradient(make_classifier, labelled_samples, present, encoder):
    samples = {"all": labelled_samples, "picture": labelled_samples[:1], "none": []}[present]
    model = make_classifier(encoder=encoder)
    loss = step(model, collate(samples))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert (loss > 0) == bool(samples)


def test_experts_see_their_own_modality(make_classifier, labelled_samples):
    model = make_classifier(encoder={"num_experts": 2})
    assert model.modalities["pairs"].expert == 1
    step(model, collate(labelled_samples[:1])).backward()  # a picture alone, of expert 0
    first, second = (expert.attn.qkv.weight.grad for expert in model.encoder.layers(0))
    assert (first != 0).any() and (second == 0).all()


def test_frozen_layers_keep_their_weights_and_train_the_rest(make_classifier, labelled_samples, loader):
    start = make_classifier().state_dict()
    model = make_classifier(freeze_layers=1, encoder={"drop_path": 0.5}, **SGD)
    trained = fit(model, loader([labelled_samples] * 2))
    moved = {name for name in trained if not torch.equal(trained[name], start[name])}
    assert "encoder.blocks.1.attn.qkv.weight" in moved and "heads.label.proj.weight" in moved
    assert not [name for name in moved if name.startswith(("modalities.", "encoder.blocks.0."))]
    model.train()
    assert not model.encoder.blocks[0].training and model.encoder.blocks[1].training


def test_a_frozen_encoder_is_a_linear_probe(make_classifier, labelled_samples, loader):
    start = make_classifier().state_dict()
    model = make_classifier(freeze_layers="all", **SGD)
    assert model.heads.training and not any(module.training for module in model.encoder.modules())  # a fit calls train() at its end only
    trained = fit(model, loader([labelled_samples] * 2))
    assert {name for name in trained if not torch.equal(trained[name], start[name])} == {"heads.label.proj.weight", "heads.label.proj.bias"}


def test_loss_falls_on_a_fixed_batch_and_scores_are_logged(make_classifier, labelled_samples, loader):
    model = make_classifier(optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2), layer_decay=0.8)
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, **QUIET)
    trainer.fit(model, loader([labelled_samples] * 60), loader([labelled_samples[:3], labelled_samples[3:]]))
    scores = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert scores["val/accuracy"] == 1 and scores["val/macro_f1"] == 1 and scores["val/loss"] < 0.1
    assert scores["val/samples"] == sum("label" in sample.labels for sample in labelled_samples)
    tested = trainer.test(model, loader([labelled_samples]), verbose=False)[0]
    assert tested["test/accuracy"] == 1


def test_several_heads_learn_several_labels(make_classifier, labelled_samples, loader):
    for number, sample in enumerate(labelled_samples):
        sample.labels["parity"] = number % 2
    model = make_classifier(heads={"parity": partial(ClassificationHead, num_classes=2)})
    scores = L.Trainer(accelerator="cpu", **QUIET).validate(model, loader([labelled_samples]), verbose=False)[0]
    assert scores["val/samples/parity"] == 8 and scores["val/samples/label"] < 8
    assert scores["val/accuracy"] == pytest.approx((scores["val/accuracy/label"] + scores["val/accuracy/parity"]) / 2)


def test_predictions_are_written_with_keys(make_classifier, labelled_samples, loader, tmp_path):
    model = make_classifier().eval()
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.predict(model, loader([labelled_samples[:3], [], labelled_samples[3:]]), return_predictions=False)
    probabilities, ids = (np.load(tmp_path / f"predictions/{name}.npy") for name in ("label", "label_ids"))
    assert (tmp_path / "predictions/label.keys.txt").read_text().split() == [sample.key for sample in labelled_samples]
    np.testing.assert_allclose(probabilities, model(collate(labelled_samples))["label"].softmax(1).detach().numpy(), atol=1e-5)
    assert (ids == probabilities.argmax(1)).all()


def test_scores_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels, guesses = torch.randint(4, (50,), generator=generator), torch.randint(6, (50,), generator=generator)
    metric = ClassScores({"label": 7})  # class 6 never occurs
    for part in (slice(0, 13), slice(13, 50)):
        metric.update("label", torch.tensor(1.5), guesses[part], labels[part])
    scores = metric.compute()
    assert scores["macro_f1"].item() == pytest.approx(f1_score(labels, guesses, average="macro", labels=range(6), zero_division=0))
    assert scores["accuracy"].item() == pytest.approx((labels == guesses).float().mean().item())
    assert scores["loss"].item() == pytest.approx(3 / 50) and scores["samples"] == 50
    metric.reset()
    metric.update("label", torch.tensor(0.0), labels[:0], labels[:0])
    assert metric.compute() == {}


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_without_a_class_is_refused(make_classifier, labelled_samples, loader, label):
    labelled_samples[1].labels["label"] = label
    with pytest.raises(
        ValueError, match=f"sample 'sample1' has label {label} for head 'label', whose num_classes is 3: allowed are 0 to 2"
    ):
        fit(make_classifier(), loader([labelled_samples]))


def test_an_epoch_without_labels_is_refused(make_classifier, mixed_samples, loader):
    with pytest.raises(ValueError, match="no sample of the epoch has a label 'label'"):
        fit(make_classifier(), loader([mixed_samples]))


class Classes(L.LightningDataModule):
    def __init__(self, classes, loader):
        super().__init__()
        self.classes, self.train_dataloader = classes, lambda: loader


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(list("abcd"), "the shards hold 4 classes, but head 'label' has num_classes 3"), ([], "the shards hold no labels")],
)
def test_classes_of_the_data_that_do_not_fit_are_refused(make_classifier, labelled_samples, loader, classes, expected):
    with pytest.raises(ValueError, match=expected):
        L.Trainer(accelerator="cpu", max_epochs=1, **QUIET).fit(make_classifier(), Classes(classes, loader([labelled_samples])))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"freeze_layers": 3}, "freeze_layers must be 'all' or 0 to the encoder's depth, 2; got 3"),
        ({"freeze_layers": -1}, "freeze_layers must be 'all' or 0"),
        ({"freeze_layers": "all", "layer_decay": 0.5}, "layer_decay has no effect where freeze_layers is 'all'"),
        ({"layer_decay": 1.5}, r"layer_decay must be in \(0, 1\], got 1.5"),
        ({"head": {"pool": "class"}}, "head 'label' does not fit the encoder: pool 'class' needs an encoder with a class token"),
        ({"heads": {"more": ClassificationHead(8, 2, norm=LayerNorm)}}, "head 'more' does not fit the encoder"),
    ],
)
def test_settings_that_do_not_fit_are_refused(make_classifier, settings, expected):
    with pytest.raises(ValueError, match=expected):
        make_classifier(**settings)


def test_no_heads_wrong_experts_widths_and_kinds_are_refused(make_model):
    picture = partial(Input, transform=ImageTransform(size=16, channels=1), embed=partial(PatchEmbed, patch_size=4, channels=1))
    head = {"label": partial(ClassificationHead, num_classes=2)}
    encoder = Encoder(dim=16, depth=1, num_heads=2)
    with pytest.raises(ValueError, match="heads is empty"):
        FineTuning(encoder, {"picture": picture}, {})
    with pytest.raises(ValueError, match="'picture' is of expert 1, but the encoder's num_experts is 1"):
        FineTuning(encoder, {"picture": partial(picture, expert=1)}, head)
    with pytest.raises(ValueError, match="its embedding gives vectors of 8 values, the encoder's dim is 16"):
        FineTuning(encoder, {"picture": partial(picture, embed=PatchEmbed(8, patch_size=4, channels=1))}, head)
    pretraining = make_model().modalities["picture"]
    assert isinstance(pretraining, Modality)
    with pytest.raises(ValueError, match="'picture' is one of pretraining"):
        FineTuning(encoder, {"picture": lambda dim: pretraining}, head)
