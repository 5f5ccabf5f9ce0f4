"""``torchrun -m multimodal fit`` on shards: two processes train as one does, with copies of the model and with its shards."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from multimodal.cli import main
from multimodal.training.checkpoint_files import consolidated_state

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "multimodal"]
SHARDED = ["--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy", "--trainer.strategy.data_parallel_size"]
CONFIG = """
model:
  class_path: multimodal.training.FineTuning
  init_args:
    encoder: {dim: 16, depth: 2, num_heads: 2}
    modalities:
      image:
        class_path: multimodal.modality.Input
        init_args:
          transform: {class_path: multimodal.tokenizers.image.ImageTransform, init_args: {size: 16, channels: 1}}
          embed: {class_path: multimodal.tokenizers.image.PatchEmbed, init_args: {patch_size: 8, channels: 1}}
    heads: {label: {class_path: multimodal.heads.ClassificationHead, init_args: {num_classes: 2}}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.01}}
    schedule: {class_path: multimodal.training.WarmupCosine, init_args: {warmup: 0.0, final: 1.0}}
data:
  class_path: multimodal.datamodules.shard_datamodule.ShardDataModule
  init_args: {shards: SHARDS}
trainer:
  accelerator: cpu
  max_epochs: 2
  enable_progress_bar: false
  log_every_n_steps: 1
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config on shards of 28 dark and bright pictures."""
    folder = tmp_path_factory.mktemp("torchrun")
    generator = np.random.default_rng(0)
    for number in range(28):
        path = folder / "files" / ("train", "train", "train", "val")[number % 4] / ("dark", "bright")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 60, (16, 16), np.uint8) + np.uint8(120 * (number % 2))).save(path)
    assert main(["shards", "write", str(folder / "files"), "--to", str(folder / "shards"), "--split", "folders"]) == 0
    (folder / "config.yaml").write_text(CONFIG.replace("SHARDS", str(folder / "shards")))
    return folder / "config.yaml"


def fit(config: Path, run: Path, *options: str, command: list[str] = TORCHRUN) -> list[dict[str, float]]:
    """Return the validation scores of each epoch."""
    result = subprocess.run(
        [*command, "fit", "--config", str(config), "--run", str(run), *options], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [row for path in sorted(run.glob("metrics/*/metrics.csv")) for row in csv.DictReader(path.open()) if row.get("val/loss")]
    return [{name: float(row[name]) for name in ("val/loss", "val/accuracy", "val/macro_f1", "val/samples")} for row in rows]


@pytest.mark.slow
def test_torchrun_trains_as_one_process(config, tmp_path):
    one = fit(config, tmp_path / "one", "--data.init_args.batch_size", "8", command=[sys.executable, "-m", "multimodal"])
    assert len(one) == 2 and one[-1]["val/samples"] == 7
    for name, options in (
        ("copies", ["--trainer.strategy", "ddp"]),
        ("shards", [*SHARDED, "2", "--trainer.strategy.tensor_parallel_size", "1"]),
    ):
        two = fit(config, tmp_path / name, "--data.init_args.batch_size", "4", "--trainer.devices", "2", *options)
        assert two[-1] == pytest.approx(one[-1], rel=1e-4)
    last = tmp_path / "shards/checkpoints/last.ckpt"
    assert last.is_dir()
    save_file({k: v.contiguous() for k, v in consolidated_state(last).items()}, tmp_path / "whole.safetensors")
    more = ["--trainer.max_epochs", "3", "--ckpt_path", "last", "--data.init_args.batch_size", "8"]
    resumed = fit(config, tmp_path / "shards", *more, command=[sys.executable, "-m", "multimodal"])
    longer = fit(config, tmp_path / "one", *more, command=[sys.executable, "-m", "multimodal"])
    assert resumed[-1] == pytest.approx(longer[-1], rel=1e-4)
    assert main(["validate", "--config", str(config), "--run", str(tmp_path / "shards"), "--ckpt_path", "last"]) == 0
    torn = consolidated_state(tmp_path / "shards/checkpoints/last.ckpt")
    assert torn.keys() == consolidated_state(tmp_path / "one/checkpoints/last.ckpt").keys()


@pytest.mark.slow
def test_layers_are_not_split(config, tmp_path):
    command = [*TORCHRUN, "fit", "--config", str(config), "--run", str(tmp_path), "--trainer.devices", "2", *SHARDED, "1"]
    command += ["--trainer.strategy.tensor_parallel_size", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert result.returncode != 0 and "tensor_parallel_size is 2, but single layers are not split over processes" in result.stderr
