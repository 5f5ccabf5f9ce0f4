"""Several labels of a sample in fine-tuning: exact means, shares of mixed labels, heads of both kinds, and a model that learns tones."""

from dataclasses import replace
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from multimodal.batch import Item, Sample, collate
from multimodal.heads import ClassificationHead, TaggingHead
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.tokenizers.audio import AudioTransform, CircularShift, LogMel, SpecAugment, SpectrogramEmbed, Spectrograms
from multimodal.training import FineTuning, Mixing
from multimodal.training.callbacks import PredictionWriter
from multimodal.training.callbacks.step_seed import seed_all
from multimodal.training.mixing import Draw, mix

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
PITCHES = (400.0, 1800.0)


def tones(number: int, labelled: bool = True) -> Sample:
    """A sound of up to half a second in noise, with any of two tones."""
    generator = torch.Generator().manual_seed(number)
    there = torch.tensor([number % 2, number // 2 % 2])
    time = torch.arange(5000 + 500 * (number % 5)) / 16_000
    parts = [weight * torch.sin(2 * torch.pi * pitch * time) for weight, pitch in zip(there.tolist(), PITCHES, strict=True)]
    values = 0.2 * sum(parts) + 0.02 * torch.randn(len(time), generator=generator)
    return Sample(f"s{number}", {"sound": Item(values, ragged=True)}, {"labels": there} if labelled else {}, seed=number)


def build(preparation=(), heads=None, **settings) -> FineTuning:
    torch.manual_seed(0)
    steps = [*preparation, Spectrograms(LogMel(num_bins=32)), SpecAugment(time_width=8, frequency_width=4)]
    embed = partial(SpectrogramEmbed, patch_size=[8, 32], position=None)
    sound = partial(Input, transform=AudioTransform(seconds=0.5), embed=embed, preparation=steps)
    told = heads or {"labels": partial(TaggingHead, num_classes=2)}
    return FineTuning(Encoder(dim=16, depth=1, num_heads=2), {"sound": sound}, told, **settings)


def ready(samples, model):
    """Return a batch as it is after the transfer to the device."""
    return model.prepared(collate(samples), train=False)


def loader(batches):
    return torch.utils.data.DataLoader([collate(samples) for samples in batches], batch_size=None)


def test_the_loss_is_a_mean_over_classes_and_a_sum_over_labelled_samples():
    model = build(label_smoothing=0.1).eval()
    samples = [*map(tones, range(5)), tones(5, labelled=False)]
    batch = ready(samples, model)
    term = model._terms(batch, "val")["labels", 0]
    target = batch.labels["labels"][:5] * 0.9 + 0.05
    expected = F.binary_cross_entropy_with_logits(model(batch)["labels"][:5], target, reduction="none").mean(1).sum()
    torch.testing.assert_close(term.loss, expected)
    assert term.count == 5


@pytest.mark.parametrize("number", [0, 3])
def test_logits_of_a_sound_do_not_depend_on_the_batch(number):
    model, samples = build().eval(), [tones(number) for number in range(5)]
    alone, whole = (model(ready(part, model))["labels"] for part in ([samples[number]], samples))
    torch.testing.assert_close(alone[0], whole[number], atol=1e-5, rtol=1e-4)


def test_accumulated_batches_equal_one_large_batch():
    settings = {
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "schedule": lambda o, _: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
    }
    samples = [tones(number, labelled=number != 2) for number in range(7)]
    found = []
    for batches, accumulated in (([samples], 1), ([samples[:1], samples[1:3], samples[3:]], 3)):
        model = build(**settings)
        L.Trainer(max_epochs=1, accumulate_grad_batches=accumulated, **QUIET).fit(model, loader(batches))
        found.append({name: value.clone() for name, value in model.state_dict().items() if "scores" not in name})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-6, rtol=1e-4)


def test_labels_of_mixed_samples_are_shared():
    class Fixed(Mixing):
        def draw(self, generator):
            return Draw(0.3)

    model = build(mixing=Fixed(cutmix_alpha=0.0))
    batch = ready([tones(number) for number in range(4)], model)
    mixed_batch, mixed = mix(batch, Draw(0.3))
    assert mixed.partner.tolist() == [3, 2, 1, 0]
    rows = batch.labels["labels"].float()
    target = 0.3 * rows + 0.7 * rows.flip(0)
    expected = F.binary_cross_entropy_with_logits(model(mixed_batch)["labels"], target, reduction="none").mean(1).sum()
    torch.testing.assert_close(model._terms(batch, "train")["labels", 0].loss, expected)


def test_heads_of_both_kinds_learn_together():
    heads = {"label": partial(ClassificationHead, num_classes=3), "labels": partial(TaggingHead, num_classes=2)}
    samples = [replace(tones(number), labels=tones(number).labels | {"label": number % 3}) for number in range(6)]
    scores = L.Trainer(**QUIET).validate(build(heads=heads), loader([samples[:2], samples[2:]]), verbose=False)[0]
    assert {"val/accuracy/label", "val/accuracy", "val/mean_average_precision/labels", "val/samples/labels"} <= set(scores)
    assert scores["val/samples/label"] == scores["val/samples/labels"] == 6


def test_two_tones_are_learned_and_predicted(tmp_path):
    model = build([CircularShift()], mixing=Mixing(cutmix_alpha=0.0), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2))
    train, test = [[tones(i) for i in range(start, start + 12)] for start in range(0, 48, 12)], [tones(i) for i in range(100, 124)]
    seed_all(0, 0)
    before = L.Trainer(**QUIET).validate(model, loader([test]), verbose=False)[0]["val/loss"]
    trainer = L.Trainer(max_epochs=12, default_root_dir=tmp_path, callbacks=[PredictionWriter()], **QUIET)
    trainer.fit(model, loader(train), loader([test[:10], test[10:]]))
    scores = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert scores["val/mean_average_precision"] > 0.99 and scores["val/mean_roc_auc"] > 0.99 and scores["val/loss"] < before / 2
    trainer.predict(model, loader([test]), return_predictions=False)
    files = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert files == ["labels.keys.txt", "labels.npy"]
    probabilities = np.load(tmp_path / "predictions/labels.npy")
    truth = torch.stack([sample.labels["labels"] for sample in test]).numpy()
    assert ((probabilities > 0.5) == truth).mean() > 0.9


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.tensor([0, 2]),
            r"sample 's1' has labels of the values \[0, 2\] for head 'labels', whose num_classes is 2: allowed are 0 and 1",
        ),
        (torch.tensor([0, 0, 1]), "has labels for 3 classes for head 'labels', whose num_classes is 2: allowed are at most 2"),
        (1, "has one label for head 'labels', whose num_classes is 2: allowed are several; ClassificationHead is for one"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    samples = [replace(tones(1), labels={"labels": labels})]
    with pytest.raises(ValueError, match=message):
        build().on_before_batch_transfer(collate(samples), 0)


def test_a_head_of_one_label_refuses_several():
    with pytest.raises(
        ValueError, match="has several labels for head 'labels', whose num_classes is 2: allowed is one; TaggingHead is for several"
    ):
        build(heads={"labels": partial(ClassificationHead, num_classes=2)}).on_before_batch_transfer(collate([tones(1)]), 0)


def test_cutmix_of_sounds_is_refused():
    with pytest.raises(ValueError, match="CutMix has no effect on sound, whose items are sequences: set the mixing's cutmix_alpha to 0"):
        build(mixing=Mixing())


@pytest.mark.parametrize(
    ("tags", "message"), [(["a", "b", "c"], "the shards hold 3 classes, but head 'labels'"), ([], "no sample has an entry 'labels'")]
)
def test_labels_of_the_data_that_do_not_fit_are_refused(tags, message):
    class Data(L.LightningDataModule):
        def __init__(self):
            super().__init__()
            self.tags, self.train_dataloader = tags, lambda: loader([[tones(1)]])

    with pytest.raises(ValueError, match=message):
        L.Trainer(max_epochs=1, **QUIET).fit(build(), Data())
