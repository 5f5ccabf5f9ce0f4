"""Batches from folders of shards."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from lightning.pytorch import LightningDataModule

from multimodal.datamodules.bad_samples import BadSamples, OnError
from multimodal.datamodules.index import ShardIndex
from multimodal.datamodules.plan import EpochPlan
from multimodal.datamodules.preparation import SamplePreparation
from multimodal.datamodules.stream import EpochLoader, ShardStream
from multimodal.protocols import Transform


class ShardDataModule(LightningDataModule):
    """Batches from one or several folders written by ``multimodal shards write``.

    The order depends on the seed, the epoch, and the numbers of ranks and workers; what happens to a sample depends on the seed, the epoch
    and its key only. Training drops the rest that does not fill a batch on every rank, another rest in each epoch; evaluation reads every
    sample exactly once, in an order that is always the same.

    Args:
        shards: folders with an ``index.json``; several are mixed in proportion to their sizes.
        transforms: modality name -> transform; the command line takes them from the model.
        batch_size: samples of a batch on each device.
        num_workers: reading processes of each device; 0 reads in the training process.
        seed: of the order and of augmentation, at least 0.
        shuffle_buffer: samples that a training worker holds, as bytes, to draw the next one from; below 2: only whole shards are shuffled.
        train_split: split to train on.
        val_split: split to validate on; None: no validation.
        test_split: split to test on and to predict.
        on_error: "raise" stops at the first bad sample; "skip" leaves bad samples out, with a warning for each kind of reason.
        max_bad_fraction: share of the samples read by a worker that may be bad before "skip" stops too, in [0, 1].
        pin_memory: whether batches are put in page-locked memory, for faster copies to a GPU.

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(
        self,
        shards: list[str] | str,
        transforms: Mapping[str, Transform] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        shuffle_buffer: int = 1000,
        train_split: str = "train",
        val_split: str | None = "val",
        test_split: str = "test",
        on_error: OnError = "raise",
        max_bad_fraction: float = 0.01,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        self.shards = [str(shards)] if not isinstance(shards, (list, tuple)) else [str(folder) for folder in shards]
        if not self.shards:
            raise ValueError("shards is empty: name at least one folder.")
        BadSamples(on_error, max_bad_fraction)  # checks the two
        EpochPlan([], batch_size, train=True, seed=seed, num_workers=num_workers)  # and these
        self.transforms = transforms
        self.batch_size, self.num_workers, self.seed, self.shuffle_buffer = batch_size, num_workers, seed, shuffle_buffer
        self.train_split, self.val_split, self.test_split = train_split, val_split, test_split
        self.on_error, self.max_bad_fraction, self.pin_memory = on_error, max_bad_fraction, pin_memory
        self._sources: list[ShardIndex] = []

    @property
    def sources(self) -> list[ShardIndex]:
        """The index of each folder; read from disk once."""
        if not self._sources:
            self._sources = [ShardIndex.load(folder) for folder in self.shards]
        return self._sources

    @property
    def classes(self) -> list[str]:
        """The label names of all folders, sorted; the place of a name is its number in ``Batch.labels["label"]``."""
        return sorted({name for source in self.sources for name in source.classes})

    def setup(self, stage: str | None = None) -> None:
        """Read the indexes and check that every transform finds a field.

        Raises:
            ValueError: a folder without index, missing shards, no transforms, or a transform whose fields no shard has.
        """
        if not self.transforms:
            raise ValueError("transforms is empty: pass modality name -> Transform (the command line takes them from the model).")
        fields = sorted({name for source in self.sources for name in source.fields})
        for name, transform in self.transforms.items():
            if not set(transform.extensions) & set(fields):
                raise ValueError(
                    f"modality {name!r} reads the fields {', '.join(transform.extensions)}, "
                    f"but the shards in {', '.join(self.shards)} have only {', '.join(fields)}."
                )

    def train_dataloader(self) -> EpochLoader:
        """Return the training batches of this rank.

        Raises:
            ValueError: no such split, or too few samples for one batch on every rank.
        """
        loader = self._loader(self.train_split, train=True)
        plan = loader.dataset.plan
        if not len(loader):
            ranks = f" on each of {plan.world_size} ranks" if plan.world_size > 1 else ""
            raise ValueError(f"split {self.train_split!r} has {plan.num_samples} samples, too few for a batch of {self.batch_size}{ranks}.")
        return loader

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """Return the validation batches of this rank; no loader if ``val_split`` is None."""
        return [] if self.val_split is None else self.evaluation_dataloader(self.val_split)

    def test_dataloader(self) -> EpochLoader:
        """Return the test batches of this rank."""
        return self.evaluation_dataloader(self.test_split)

    def predict_dataloader(self) -> EpochLoader:
        """Return the test batches of this rank."""
        return self.evaluation_dataloader(self.test_split)

    def evaluation_dataloader(self, split: str, whole: bool = False) -> EpochLoader:
        """Return the batches of any split without augmentation, every sample once, in an order that is always the same.

        Args:
            split: name of the split.
            whole: all of the split on this rank, instead of its share.

        Raises:
            ValueError: no folder has the split.
        """
        return self._loader(split, train=False, whole=whole)

    def _loader(self, split: str, train: bool, whole: bool = False) -> EpochLoader:
        self.setup()
        if not any(source.num_samples(split) for source in self.sources):
            there = sorted({name for source in self.sources for name, shards in source.splits.items() if shards})
            raise ValueError(f"no samples of split {split!r} in {', '.join(self.shards)}; splits there: {', '.join(there) or 'none'}.")
        rank, world_size = (0, 1) if self.trainer is None or whole else (self.trainer.global_rank, self.trainer.world_size)
        sizes = [[shard.samples for shard in source.shards(split)] for source in self.sources]
        stream = ShardStream(
            self.sources,
            split,
            EpochPlan(sizes, self.batch_size, train, self.seed, world_size, self.num_workers),
            SamplePreparation(self.transforms or {}, self.classes, self.seed, train),
            BadSamples(self.on_error, self.max_bad_fraction),
            rank,
            self.shuffle_buffer,
        )
        if self.trainer is not None:
            stream.epoch_of = self._trainer_epoch
        # Lightning cannot know that the length given by the plan is exact
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return EpochLoader(
            dataset=stream,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # a loader draws from it: the global one stays untouched
        )

    def _trainer_epoch(self) -> int:
        return 0 if self.trainer is None else self.trainer.current_epoch
