"""Files of every kind through the whole path: files, shards, items, hidden tokens, a step. Not a test by itself."""

import csv
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning as L
import pytest
import torch

from multimodal.datamodules.commands import main
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.streaming.bad_samples import BadSampleWarning
from multimodal.errors import SampleError
from multimodal.training import MaskedPretraining
from tests.tokenizers.zoo import Animal


class Watched(MaskedPretraining):
    """Notes what it was trained on."""

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.seen, self.finite = [], []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.seen.extend(batch.keys)
        assert all(torch.isfinite(items.values).all() for items in batch.items.values())
        self.finite.append(bool(torch.isfinite(loss)) and (float(loss.detach()) > 0 or not batch.keys))
        return loss


def named(kinds: Mapping[str, tuple]) -> dict[str, Animal]:
    """Return files of the zoo by names that files may have."""
    return {name.replace(" ", "-").replace(".", "-"): Animal(*animal) for name, animal in kinds.items()}


def fit(model: Watched, shards: Path, folder: Path, **settings) -> None:
    """Train for an epoch."""
    data = ShardDataModule(str(shards), model.transforms, **{"batch_size": 8, "val_split": None} | settings)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet).fit(model, datamodule=data)


def write(folder: Path, animals: Mapping[str, Animal], samples_per_shard: int = 50) -> Path:
    """Write files into shards, and return where these are; what has no place in a shard is left out."""
    source, target = folder / "files", folder / "shards"
    source.mkdir(parents=True)
    for name, animal in animals.items():
        (source / f"{name}.{animal.field}").write_bytes(animal.make())
    options = ["--split", "train=1", "--samples-per-shard", str(samples_per_shard), "--workers", "0", "--on-error", "skip"]
    assert main(["write", str(source), "--to", str(target), *options]) == 0
    return target


def train_on_all(model: Watched, shards: Path, folder: Path, animals: Mapping[str, Animal]) -> dict[str, str]:
    """Train on what can be read; look that the rest is named, and that nothing is lost or comes twice.

    Args:
        model: not trained yet.
        shards: of the animals.
        folder: for the list of what is left out.
        animals: all that have a place in a shard.

    Returns:
        Name -> reason, of those left out.
    """
    with pytest.warns(BadSampleWarning) as told:
        fit(model, shards, folder, on_error="skip", max_bad_fraction=1.0)
    assert model.finite and all(model.finite) and all(parameter.isfinite().all() for parameter in model.parameters())
    with (folder / "bad_samples.csv").open(newline="") as file:
        bad = {key: (shard, field, reason) for shard, key, field, reason in csv.reader(file)}
    good = {name for name, animal in animals.items() if isinstance(animal.expected, tuple)}
    refused = {name for name, animal in animals.items() if isinstance(animal.expected, str)}
    assert any(f"left out {len(bad)} of the {len(animals)} samples read in this epoch" in str(warning.message) for warning in told)
    assert sorted([*model.seen, *bad]) == sorted(animals)
    assert good <= set(model.seen) and refused <= set(bad)
    for name, (shard, field, reason) in bad.items():
        assert Path(shard).name.startswith("train-") and field == animals[name].field and "\n" not in reason
    return {name: reason for name, (_, _, reason) in bad.items()}


def stop_at_the_first(model: Watched, shards: Path, folder: Path, name: str, animal: Animal) -> None:
    """Look that a strict run stops with the name of a file that cannot be read."""
    with pytest.raises(SampleError) as caught:
        fit(model, shards, folder)
    error = caught.value
    assert Path(error.shard).name == "train-000000.tar" and error.key == name and error.field == animal.field
    assert error.key in str(error) and "train-000000.tar" in str(error) and len(error.reason) > 10


def stop_at_too_many(make_model: Callable[[], Watched], shards: Path, folder: Path) -> None:
    """Look that a run that leaves out bad files stops where these are too many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BadSampleWarning)
        with pytest.raises(ValueError, match=r"samples read could not be used, more than max_bad_fraction=0\.1 allows; the last: shard"):
            fit(make_model(), shards, folder, on_error="skip", max_bad_fraction=0.1)
