"""Batches with nothing to learn from: a loss of 0 that reaches every parameter, and never a NaN."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch

from multimodal.batch import Item, collate
from multimodal.masking import RandomMasking
from multimodal.nn import Attention, Encoder, RotaryPosition
from multimodal.training.callbacks import FiniteGuard, PictureLogger, PredictionWriter
from tests.ranks import run_script

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Share(RandomMasking):
    """Hides everything, or nothing."""

    def __init__(self, everything):
        self.everything = everything

    def __call__(self, tokens, seed):
        return torch.full((len(tokens.inputs),), self.everything)


def gradients_of(model, batch):
    model.log = lambda *args, **kwargs: None
    model.train()
    loss = model.training_step(batch, 0)
    loss.backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None] == []
    return loss.item(), trainable


def emptied(sample, *names):
    """The sample with items of length 0."""
    items = {name: Item(item.values[:0], ragged=True) if name in names else item for name, item in sample.items.items()}
    return replace(sample, items=items)


@pytest.mark.parametrize("samples", ["none", "without items", "items of length 0"])
def test_the_loss_of_nothing_is_zero_and_reaches_every_parameter(make_model, mixed_samples, samples):
    batch = {
        "none": [],
        "without items": [replace(sample, items={}) for sample in mixed_samples],
        "items of length 0": [emptied(mixed_samples[number], "pairs") for number in (1, 3)],
    }[samples]
    loss, parameters = gradients_of(make_model(), collate(batch))
    assert loss == 0
    assert all((p.grad == 0).all() for p in parameters.values())


def test_a_weight_that_is_not_finite_does_not_make_the_zero_one(make_model):
    model = make_model()
    model.encoder.norm.weight.data.fill_(torch.nan)
    loss, parameters = gradients_of(model, collate([]))
    assert loss == 0 and all((p.grad == 0).all() for p in parameters.values())


@pytest.mark.parametrize("everything", [True, False])
def test_all_or_no_tokens_hidden(make_model, mixed_samples, everything):
    model = make_model()
    for modality in model.modalities.values():
        modality.masking = Share(everything)
    loss, parameters = gradients_of(model, collate(mixed_samples))
    assert (loss > 0) == everything and torch.tensor(loss).isfinite()
    assert all(p.grad.isfinite().all() for p in parameters.values())
    assert any((p.grad != 0).any() for p in parameters.values()) == everything


def test_an_item_of_length_zero_changes_nothing_for_the_others(make_model, mixed_samples):
    model = make_model().eval()
    with_empty = model(collate([mixed_samples[1], emptied(mixed_samples[2], "pairs"), mixed_samples[3]]))
    without = model(
        collate([mixed_samples[1], replace(mixed_samples[2], items={"picture": mixed_samples[2].items["picture"]}), mixed_samples[3]])
    )
    for name in ("picture", "pairs"):
        torch.testing.assert_close(with_empty.views[name].hidden, without.views[name].hidden)


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("rotary", [None, RotaryPosition])
def test_the_encoder_takes_no_tokens(class_token, rotary):
    encoder = Encoder(
        dim=16, depth=2, num_heads=2, class_token=class_token, rotary=rotary, attention=partial(Attention, bias="query_value")
    )
    tokens = torch.zeros(0, 16, requires_grad=True)
    encoded, layers = encoder.forward_intermediates(tokens, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), indices=(0, 1))
    assert encoded.tokens.shape == (0, 16) and [layer.shape for layer in layers] == [(0, 16)] * 2
    assert (encoded.class_token.shape == (0, 16)) if class_token else encoded.class_token is None
    encoded.tokens.sum().backward()
    lacking = [name for name, p in encoder.named_parameters() if p.grad is None and name != "class_token"]
    assert lacking == []


def test_empty_batches_in_every_stage(tmp_path, make_model, mixed_samples, loader):
    model = make_model(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    batches = [[], mixed_samples, [], [mixed_samples[1]]]
    guard = FiniteGuard(max_consecutive=0)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, callbacks=[guard, PictureLogger(), PredictionWriter()], **QUIET
    )
    trainer.fit(model, loader(batches), loader(batches))
    assert trainer.global_step == 4 and guard.skipped == 0
    with_empty = trainer.validate(model, loader(batches), verbose=False)[0]
    assert with_empty == trainer.validate(model, loader(batches[1::2]), verbose=False)[0]
    assert with_empty["val/loss/pairs"] > 0
    assert trainer.test(model, loader([[]]), verbose=False) == [{}]
    trainer.predict(model, loader(batches), return_predictions=False)
    assert len((tmp_path / "predictions/picture.keys.txt").read_text().split()) == 4
    assert model.features(collate([]), "picture").shape == (0, 16)
    assert (model.features(collate([mixed_samples[1]]), "picture") == 0).all()


def test_an_empty_batch_among_accumulated_ones_changes_nothing(make_model, mixed_samples, loader):
    trained = []
    for batches in ([mixed_samples[:4], mixed_samples[4:]], [mixed_samples[:4], [], mixed_samples[4:]]):
        model = make_model(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
        L.Trainer(accelerator="cpu", max_epochs=1, accumulate_grad_batches=len(batches), **QUIET).fit(model, loader(batches))
        trained.append(model.state_dict())
    assert all(torch.allclose(trained[0][name].float(), trained[1][name].float(), atol=1e-6) for name in trained[0] if "scores" not in name)


def test_a_process_with_empty_batches_does_not_count(tmp_path):
    """Rank 1 of two gets empty batches, rank 0 all samples: the weights are those of one process with all samples."""
    script = Path(__file__).parent / "ddp_script.py"
    for ranks in (1, 2):
        run_script(script, str(tmp_path), str(ranks), "empty", ranks=ranks)
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1_0", "2_0", "2_1"))
    for name in one:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(one[name], first[name], atol=1e-6, rtol=1e-5, msg=name)
