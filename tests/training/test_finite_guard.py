"""NaN and infinity stay out of weights, moments and averages; the run says what was wrong and stops in time."""

import csv
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision

from multimodal.training.callbacks import FiniteGuard
from tests.ranks import run_script

STEPS = 6


def poison(model, steps, name="picture", value=torch.nan):
    """Multiply the loss of a modality by a value in some steps."""
    whole = model._terms

    def terms(batch, stage):
        found = whole(batch, stage)
        if model.trainer.global_step in steps and (name, 0) in found:
            term = found[name, 0]
            found[name, 0] = type(term)(term.loss * value, term.count, term.weight, term.correct, term.ids)
        return found

    model._terms = terms


def poison_gradient(model, steps):
    """Give one parameter a gradient that is not finite, of a loss that is."""
    weight = model.encoder.blocks[0].mlp.fc1.weight
    weight.register_hook(lambda gradient: gradient * torch.nan if model.trainer.global_step in steps else gradient)


def fit(folder, model, data, *callbacks, guard=None, **settings):
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    guard = guard or FiniteGuard()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=folder,
        callbacks=[guard, *callbacks],
        log_every_n_steps=1,
        **{"logger": False} | settings,
        **quiet,
    )
    trainer.fit(model, data)
    return guard, trainer


class Record(L.Callback):
    """Keeps weights and moments after every step, and what the average was."""

    def __init__(self, ema=None):
        self.ema, self.states = ema, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        state = [p.detach().clone() for p in module.parameters() if p.requires_grad]
        for moments in trainer.optimizers[0].state.values():
            state += [value.clone() for value in moments.values()]
        if self.ema:
            state += [p.detach().clone() for p in self.ema._average_model.parameters()]
        self.states.append(state)


def adamw(groups):
    return torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.5)


def equal(left, right):
    return len(left) == len(right) and all(torch.equal(x, y) for x, y in zip(left, right, strict=True))


@pytest.mark.parametrize("how", ["nan loss", "infinite loss", "nan gradient"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_skipped_step_changes_nothing(tmp_path, make_model, mixed_samples, loader, how, clip):
    model = make_model(optimizer=adamw)
    if how == "nan gradient":
        poison_gradient(model, {2, 3})
    else:
        poison(model, {2, 3}, value=torch.nan if how == "nan loss" else torch.inf)
    ema = EMAWeightAveraging(decay=0.5)
    record = Record(ema)
    with pytest.warns(UserWarning, match=r"step 2 is skipped"):
        guard, trainer = fit(tmp_path, model, loader([mixed_samples] * STEPS), ema, record, gradient_clip_val=clip)
    assert (guard.skipped, guard.in_a_row, trainer.global_step) == (2, 0, STEPS)
    first = record.states
    assert equal(first[1], first[2]) and equal(first[2], first[3])
    assert not equal(first[0], first[1]) and not equal(first[3], first[4]) and not equal(first[4], first[5])
    assert all(value.isfinite().all() for state in first for value in state)


def test_a_run_without_faults_is_not_changed_by_the_guard(tmp_path, make_model, mixed_samples, loader):
    trained = []
    for guard in (FiniteGuard(), L.Callback()):
        model = make_model(optimizer=adamw)
        fit(tmp_path, model, loader([mixed_samples] * STEPS), guard=guard)
        trained.append([p.detach() for p in model.parameters()])
    assert equal(*trained)


def test_the_first_is_announced_once_with_modality_and_samples_and_all_are_counted(tmp_path, make_model, mixed_samples, loader):
    model = make_model()
    poison(model, {1, 2, 4}, name="pairs", value=torch.inf)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, model, loader([mixed_samples[:3]] * STEPS), logger=CSVLogger(tmp_path, name="metrics"))
    said = [str(warning.message) for warning in caught if "skipped" in str(warning.message)]
    assert said == ["step 1 is skipped, and so will others be: the loss of 'pairs' is inf; samples sample0, sample1, sample2."]
    with (tmp_path / "metrics/version_0/metrics.csv").open(newline="") as file:
        counts = [float(row["train/skipped_steps"]) for row in csv.DictReader(file) if row["train/skipped_steps"]]
    assert counts == [1, 2, 2, 3, 3]


def test_too_many_in_a_row_end_the_run(tmp_path, make_model, mixed_samples, loader):
    model = make_model()
    poison(model, {0, 2, 3, 4, 5})
    expected = (
        r"step 5: the loss of 'picture' is nan; samples sample0, .*sample7\. 4 steps in a row were not finite \(max_consecutive is 3\)"
    )
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=expected):
        fit(tmp_path, model, loader([mixed_samples] * STEPS), guard=FiniteGuard(max_consecutive=3))


def test_many_samples_are_not_all_named(tmp_path, make_model, mixed_samples, loader):
    model = make_model()
    poison_gradient(model, {0})
    expected = r"gradients are not finite, though the loss is; samples sample0, .*sample7 and 8 more\. 1 steps"
    with pytest.raises(ValueError, match=expected):
        fit(tmp_path, model, loader([mixed_samples * 2] * 2), guard=FiniteGuard(max_consecutive=0))


def test_a_batch_of_an_accumulated_step_is_found(tmp_path, make_model, mixed_samples, loader):
    model = make_model()
    whole = model.training_step
    model.training_step = lambda batch, batch_idx: whole(batch, batch_idx) * (torch.nan if batch_idx == 3 else 1.0)
    record = Record()
    parts = [mixed_samples[:4], mixed_samples[4:]] * 3
    with pytest.warns(UserWarning, match=r"step 1 is skipped.*the loss is not finite; samples sample4, sample5, sample6, sample7"):
        guard, trainer = fit(tmp_path, model, loader(parts), record, accumulate_grad_batches=2)
    assert (guard.skipped, trainer.global_step) == (1, 3)
    assert equal(record.states[1], record.states[3]) and not equal(record.states[3], record.states[5])


class Overflowing(MixedPrecision):
    """float16 with a scaler of a huge scale, on the CPU."""

    def __init__(self, scale):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000))


@pytest.mark.parametrize("optimizer", [adamw, lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True)], ids=["plain", "fused"])
def test_what_a_gradient_scaler_skips_is_no_failure(tmp_path, make_model, mixed_samples, loader, optimizer):
    model = make_model(optimizer=optimizer)
    record, precision = Record(), Overflowing(2.0**17)
    data = loader([mixed_samples] * 12)
    guard, _ = fit(tmp_path, model, data, record, guard=FiniteGuard(max_consecutive=0), plugins=[precision])
    assert guard.skipped == 0
    assert precision.scaler.get_scale() < 2.0**17  # it did skip
    assert not equal(record.states[-2][:10], record.states[-1][:10])  # and then trained
    assert all(value.isfinite().all() for value in record.states[-1])


@pytest.mark.parametrize("optimizer", [adamw, lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True)], ids=["plain", "fused"])
@pytest.mark.parametrize("gradients", [True, False], ids=["with its gradients", "alone"])
def test_a_loss_that_is_not_finite_is_one_for_a_scaler_too(tmp_path, make_model, mixed_samples, loader, optimizer, gradients):
    model = make_model(optimizer=optimizer)
    if gradients:
        poison(model, {2})
    else:
        whole = model.training_step
        model.training_step = lambda batch, batch_idx: whole(batch, batch_idx) + (torch.inf if batch_idx == 2 else 0.0)
    record, precision = Record(), Overflowing(2.0)
    with pytest.warns(UserWarning, match="step 2 is skipped"):
        guard, _ = fit(tmp_path, model, loader([mixed_samples] * STEPS), record, plugins=[precision])
    assert guard.skipped == 1
    assert equal(record.states[1], record.states[2]) and not equal(record.states[2], record.states[3])


def test_a_scaler_that_can_go_no_lower_does_not_skip_for_ever(tmp_path, make_model, mixed_samples, loader):
    model = make_model()
    poison_gradient(model, set(range(100)))
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ValueError, match="4 steps in a row were not finite"):
        fit(tmp_path, model, loader([mixed_samples] * 20), guard=FiniteGuard(3), plugins=[Overflowing(4.0)])


def test_two_processes_skip_together(tmp_path):
    """Rank 1 alone has a loss that is not finite; both name its samples and keep equal weights."""
    script = Path(__file__).parent / "ddp_script.py"
    errors = run_script(script, str(tmp_path), "2", "nan")
    first, second = (torch.load(tmp_path / f"2_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)
    assert "step 1 is skipped" in errors and "the loss of 'pairs' is nan; samples sample1, sample2" in errors


def test_the_counts_are_part_of_a_checkpoint():
    guard, other = FiniteGuard(), FiniteGuard()
    guard.skipped, guard.in_a_row = 7, 2
    other.load_state_dict(guard.state_dict())
    assert (other.skipped, other.in_a_row) == (7, 2)


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="max_consecutive must be at least 0, got -1"):
        FiniteGuard(-1)
