"""Averaged weights (EMA) in fine-tuning: what is validated, saved, continued and exported is what a user expects."""

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from multimodal.batch import collate
from multimodal.cli import main
from multimodal.pretrained import from_pretrained
from multimodal.training.callbacks import AveragedWeights, StepSeed

DECAY = 0.8
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
SGD = {
    "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
}


class Recorder(L.Callback):
    """The weights after each step, and the average over them, in float64."""

    def __init__(self, warmup):
        self.average, self.warmup, self.steps = {}, warmup, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        now = {name: x.detach().double().clone() for name, x in pl_module.named_parameters()}
        decay = min(DECAY, (1 + self.steps) / (10 + self.steps)) if self.warmup else DECAY
        self.average = {name: decay * self.average[name] + (1 - decay) * x for name, x in now.items()} if self.average else now
        self.steps += 1


def fit(model, batches, folder, epochs, resume=None, warmup=False):
    recorder = Recorder(warmup)
    callbacks = [StepSeed(0), recorder, AveragedWeights(DECAY, warmup), ModelCheckpoint(folder, save_last=True)]
    trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks, **QUIET)
    loaders = [torch.utils.data.DataLoader([collate(samples) for samples in each], batch_size=None) for each in (batches, batches[:1])]
    trainer.fit(model, *loaders, ckpt_path=resume)
    return trainer, recorder.average, torch.load(folder / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("warmup", [False, True])
def test_checkpoints_and_validation_are_of_the_average(make_classifier, labelled_samples, tmp_path, warmup):
    trainer, average, saved = fit(make_classifier(**SGD), [labelled_samples, labelled_samples[:5]], tmp_path, 3, warmup=warmup)
    now = saved["current_model_state"]
    for name, expected in average.items():
        torch.testing.assert_close(saved["state_dict"][name].double(), expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(trainer.lightning_module.get_parameter(name).double(), expected, atol=1e-6, rtol=1e-5)
    assert any(not torch.allclose(now[name], saved["state_dict"][name], atol=1e-4) for name in average)
    averaged = make_classifier(**SGD)
    averaged.load_state_dict(saved["state_dict"])
    scores = L.Trainer(accelerator="cpu", **QUIET, enable_checkpointing=False).validate(
        averaged, torch.utils.data.DataLoader([collate(labelled_samples)], batch_size=None), verbose=False
    )[0]
    assert scores["val/loss"] == pytest.approx(trainer.callback_metrics["val/loss"].item(), rel=1e-5)


def test_a_continued_run_averages_on(make_classifier, labelled_samples, tmp_path):
    batches = [labelled_samples, labelled_samples[:5]]
    _, _, whole = fit(make_classifier(**SGD), batches, tmp_path / "whole", 4)
    fit(make_classifier(**SGD), batches, tmp_path / "part", 2)
    _, _, continued = fit(make_classifier(**SGD), batches, tmp_path / "part", 4, resume=tmp_path / "part" / "last.ckpt")
    for key in ("state_dict", "current_model_state"):
        for name, x in whole[key].items():
            assert torch.equal(continued[key][name], x), (key, name)


def test_short_runs_forget_their_first_weights():
    assert [AveragedWeights(0.9999).decay_after(steps) for steps in (1, 10, 90)] == pytest.approx([2 / 11, 11 / 20, 91 / 100])
    assert AveragedWeights(0.9).decay_after(1000) == AveragedWeights(0.9, warmup=False).decay_after(1) == 0.9


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
        AveragedWeights(decay)


CONFIG = """
model:
  class_path: multimodal.training.FineTuning
  init_args:
    encoder: {dim: 16, depth: 1, num_heads: 2}
    modalities:
      image:
        class_path: multimodal.modality.Input
        init_args:
          transform:
            class_path: multimodal.tokenizers.image.ClassificationTransform
            init_args:
              size: 8
              augment: {class_path: multimodal.tokenizers.image.RandAugment, init_args: {operations: [Rotate]}}
              erase: {class_path: multimodal.tokenizers.image.RandomErasing}
          embed: {class_path: multimodal.tokenizers.image.PatchEmbed, init_args: {patch_size: 4}}
    heads:
      label: {class_path: multimodal.heads.ClassificationHead, init_args: {num_classes: 2}}
    mixing: {class_path: multimodal.training.Mixing}
data:
  class_path: multimodal.datamodules.shard_datamodule.ShardDataModule
  init_args: {shards: SHARDS, batch_size: 4}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  callbacks:
    - class_path: multimodal.training.callbacks.AveragedWeights
      init_args: {decay: 0.8}
run: RUN
"""


def test_a_run_is_tested_and_exported_with_its_averaged_weights(tmp_path, capsys):
    for number in range(16):
        path = tmp_path / "raw" / ("train", "train", "val", "test")[number % 4] / ("dark", "light")[number // 4 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (number * 9,) * 3).save(path)
    assert main(["shards", "write", str(tmp_path / "raw"), "--to", str(tmp_path / "shards"), "--split", "folders"]) == 0
    run = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(CONFIG.replace("SHARDS", str(tmp_path / "shards")).replace("RUN", str(run)))
    assert main(["fit", "--config", str(tmp_path / "config.yaml")]) == 0
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert not torch.equal(saved["state_dict"]["heads.label.proj.weight"], saved["current_model_state"]["heads.label.proj.weight"])
    assert main(["export", str(run), "--format", "multimodal", "--to", str(tmp_path / "model")]) == 0
    model = from_pretrained(tmp_path / "model")
    for name, x in model.encoder.state_dict().items():
        assert torch.equal(x, saved["state_dict"][f"encoder.{name}"]), name
    assert torch.equal(model.heads["classes"].proj.weight, saved["state_dict"]["heads.label.proj.weight"])
    assert model.transform().augment.operations == ("Rotate",) and model.transform().erase.probability == 0.25
    assert main(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
    assert "test/accuracy" in (run / "test.json").read_text()
    transform = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["modalities"]["image"]["init_args"]["transform"]
    assert transform["init_args"]["augment"]["init_args"]["policy"] == "rand-m9-mstd0.5-inc1"
