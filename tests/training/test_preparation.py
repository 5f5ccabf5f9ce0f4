"""Preparations change items where the batch lies: before they are cut into tokens, and with augmentation in training alone."""

from dataclasses import replace
from functools import partial

import lightning as L
import pytest
import torch

from multimodal.batch import Item, collate
from multimodal.heads import ClassificationHead
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.protocols import Preparation, Transform
from multimodal.tokenizers.image import PatchEmbed
from multimodal.training import FineTuning


class Quarters(Preparation):
    """Keeps the upper left quarter; in training each item is brightened by its seed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, items, train):
        self.seen.append((len(items), train))
        light = (items.seed % 7 + 1).to(torch.uint8) if train else torch.zeros(len(items), dtype=torch.uint8)
        return replace(items, values=items.values[:, :, :8, :8] // 2 + light[:, None, None, None])


class Whole(Quarters):
    keeps_ids = True


class Pictures(Transform):
    extensions = ("img",)

    def decode(self, data):
        return data

    def __call__(self, decoded, generator, train):
        return Item(decoded)

    def example(self):
        return Item(torch.zeros(1, 16, 16, dtype=torch.uint8))


def make_modality(*steps: Preparation) -> partial:
    embed = partial(PatchEmbed, patch_size=4, channels=1)
    return partial(Input, transform=Pictures(), embed=embed, preparation=steps)


def make_classifier(*steps: Preparation) -> FineTuning:
    torch.manual_seed(0)
    return FineTuning(
        Encoder(dim=16, depth=1, num_heads=2), {"picture": make_modality(*steps)}, {"label": partial(ClassificationHead, num_classes=3)}
    )


def test_augmentation_happens_in_training_steps_alone(labelled_samples, loader, tmp_path):
    step = Quarters()
    model = make_classifier(step)
    step.seen.clear()
    pictures = [replace(sample, items={"picture": sample.items["picture"]}) for sample in labelled_samples if "picture" in sample.items]
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=1
    )
    trainer.fit(model, loader([pictures]), loader([pictures]))
    assert step.seen == [(4, False), (4, True), (4, False)]  # the sanity check, the training step, the validation
    trainer.test(model, loader([pictures]), verbose=False)
    assert step.seen[3:] == [(4, False)]


def test_steps_follow_each_other_and_the_tokens_are_those_of_the_last(mixed_samples):
    model = make_classifier(Quarters(), Quarters())
    batch = collate([sample for sample in mixed_samples if list(sample.items) == ["picture"]])
    prepared = model.prepared(batch, train=False).items["picture"]
    assert torch.equal(prepared.values, batch.items["picture"].values[:, :, :8, :8] // 2 // 2)
    assert model.token_counter(batch).tolist() == [4, 4]
    trained = model.prepared(batch, train=True).items["picture"]
    light, corner = batch.items["picture"].seed[0] % 7 + 1, batch.items["picture"].values[0, :, :8, :8].long()
    assert torch.equal(trained.values[0].long(), (corner // 2 + light) // 2 + light)


def test_ids_that_a_preparation_makes_those_of_other_items_are_refused(mixed_samples):
    items = collate([mixed_samples[0]]).items["picture"]
    stored = replace(items, ids=torch.zeros(16, dtype=torch.int64))
    with pytest.raises(ValueError, match="Quarters changes what the stored ids were made of: leave it out"):
        make_modality(Quarters())(16).prepared(stored, train=True)
    assert make_modality(Whole())(16).prepared(stored, train=True).ids is stored.ids
