"""Batches from shards."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from multimodal.datamodules.shards.cache import OpenShards, ShardCache
from multimodal.datamodules.shards.index import ShardIndex, StoredIds
from multimodal.datamodules.streaming.bad_samples import BadSamples, OnError
from multimodal.datamodules.streaming.batching import Batching, FixedBatches, TokenBatches
from multimodal.datamodules.streaming.lengths import Lengths
from multimodal.datamodules.streaming.locations import open_sources
from multimodal.datamodules.streaming.mixture import Mixture
from multimodal.datamodules.streaming.plan import EpochPlan
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.datamodules.streaming.stream import EpochLoader, ShardStream
from multimodal.datamodules.tokenizing.stored_ids import StoredViews, check_stored
from multimodal.protocols import TokenCounter, Transform


class ShardDataModule(LightningDataModule):
    """Batches from one or several folders written by ``multimodal shards write``.

    Every sample is read exactly once in an epoch, in an order that depends on the seed and the epoch only; what happens to a sample
    depends on the seed, the epoch and its key only. Ranks and workers cut the order: all ranks have the same number of batches, and a run
    can stop at any step and go on, with other numbers of ranks and workers too.

    Args:
        shards: folders with an ``index.json``, or tars; local paths or URLs, with braces and globs. Several sources are mixed.
        transforms: modality name -> transform; the command line takes them from the model.
        batch_size: samples of a batch on each device; the last two batches of an epoch may be smaller.
        num_workers: reading processes of each device; 0 reads in the training process.
        seed: of the order and of augmentation, at least 0.
        shuffle_buffer: consecutive samples among which a training order is drawn; only their shards are read from at a time. Below 2: only
            whole shards are shuffled.
        mixture: shares of the sources; by default every sample once.
        train_split: split to train on.
        val_split: split to validate on; None: no validation.
        test_split: split to test on and to predict.
        on_error: "raise" stops at the first bad sample; "skip" leaves bad samples out, counts them by reason, and lists them in
            ``bad_samples.csv`` in the run's folder.
        max_bad_fraction: share of the samples read on a rank in an epoch that may be bad before "skip" stops too, in [0, 1]; within an
            epoch chance is allowed for.
        max_tokens: instead of ``batch_size``, fill the training batches of each device up to this number of tokens, over all modalities; at
            least twice the longest sample. The lengths are measured once, at the start of the first run.
        eval_batch_size: samples of a batch in evaluation; None: ``batch_size``. 1: for items of unequal size, such as whole images.
        drop_last: leave out samples that do not fill a training batch on every rank, so that all batches are full.
        pin_memory: whether batches are put in page-locked memory, for faster copies to a GPU.
        cache: where copies of remote shards, and measured lengths, are kept.
        count_tokens: counts the tokens of a sample for ``max_tokens``; the command line takes it from the model.
        tokenizers: modality name -> fingerprint of its tokenizer. Ids that the shards store are used where they are this tokenizer's, and
            refused where not; without a fingerprint the tokenizer runs. The command line takes them from the model.

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
        shuffle_buffer: int = 10_000,
        mixture: Mixture | None = None,
        train_split: str = "train",
        val_split: str | None = "val",
        test_split: str = "test",
        on_error: OnError = "raise",
        max_bad_fraction: float = 0.01,
        max_tokens: int | None = None,
        eval_batch_size: int | None = None,
        drop_last: bool = False,
        pin_memory: bool = False,
        cache: ShardCache | None = None,
        count_tokens: TokenCounter | None = None,
        tokenizers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.shards = [str(shards)] if not isinstance(shards, (list, tuple)) else [str(folder) for folder in shards]
        if not self.shards:
            raise ValueError("shards is empty: name at least one folder.")
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}.")
        BadSamples(on_error, max_bad_fraction)  # checks the two
        EpochPlan([], train=True, seed=seed, shuffle_buffer=shuffle_buffer)  # and these
        FixedBatches(0, 1, batch_size)
        FixedBatches(0, 1, batch_size if eval_batch_size is None else eval_batch_size)
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
        if max_tokens is not None and drop_last:
            raise ValueError("drop_last has no effect with max_tokens: batches have different numbers of samples.")
        self.transforms, self.mixture, self.cache = transforms, mixture, cache or ShardCache()
        self.max_tokens, self.eval_batch_size, self.count_tokens = max_tokens, eval_batch_size, count_tokens
        self.batch_size, self.num_workers, self.seed, self.shuffle_buffer = batch_size, num_workers, seed, shuffle_buffer
        self.train_split, self.val_split, self.test_split = train_split, val_split, test_split
        self.on_error, self.max_bad_fraction, self.drop_last, self.pin_memory = on_error, max_bad_fraction, drop_last, pin_memory
        self.tokenizers = dict(tokenizers or {})
        self._sources: list[ShardIndex] = []
        self._stored: dict[str, list[StoredIds | None]] | None = None
        self._train_loader: EpochLoader | None = None
        self._state: dict[str, Any] | None = None

    @property
    def sources(self) -> list[ShardIndex]:
        """The index of each source; read once."""
        if not self._sources:
            self._sources = open_sources(self.shards)
        return self._sources

    @property
    def classes(self) -> list[str]:
        """The label names of all sources, sorted; the place of a name is its number in ``Batch.labels["label"]``."""
        return sorted({name for source in self.sources for name in source.classes})

    @property
    def tags(self) -> list[str]:
        """The names of labels of which a sample may have several, sorted; the place of each is its column in ``Batch.labels["labels"]``."""
        return sorted({name for source in self.sources for name in source.tags})

    @property
    def stored(self) -> dict[str, list[StoredIds | None]]:
        """Modality name -> the ids that each source stores; checked once.

        Raises:
            ValueError: they do not belong to the transforms or the tokenizers.
        """
        if self._stored is None:
            self._stored = check_stored(self.sources, self.transforms or {}, self.tokenizers)
        return self._stored

    def setup(self, stage: str | None = None) -> None:
        """Read the indexes and check that every transform finds a field.

        Raises:
            ValueError: a source without index, missing shards, no transforms, or a transform whose fields no shard has
                (in prediction: no transform finds any).
        """
        if not self.transforms:
            raise ValueError("transforms is empty: pass modality name -> Transform (the command line takes them from the model).")
        fields = sorted({name for source in self.sources for name in source.fields})
        found = {name for name, transform in self.transforms.items() if name in self.stored or set(transform.extensions) & set(fields)}
        if found and getattr(self.trainer, "predicting", False):
            return  # what is only learned from, such as transcripts, may be missing
        for name, transform in self.transforms.items():
            if name not in found:
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
        plan, batching = loader.dataset.plan, loader.dataset.batching
        if not len(loader) or plan.num_samples < batching.world_size:
            ranks = f" on each of {batching.world_size} ranks" if batching.world_size > 1 else ""
            raise ValueError(f"split {self.train_split!r} has {plan.num_samples} samples, too few for a batch of {self.batch_size}{ranks}.")
        if self._state is not None:
            loader.load_state_dict(self._state)
        self._train_loader = loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return where the training stream stands; part of each checkpoint."""
        return {} if self._train_loader is None else {"train": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the training stream go on from a state."""
        self._state = state_dict.get("train")

    def val_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """Return the validation batches of this rank; no loader if ``val_split`` is None."""
        if self.val_split is None:
            return []
        self._check_split(self.val_split, "Without validation: --data.init_args.val_split null.")
        return self.evaluation_dataloader(self.val_split)

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
            ValueError: no source has the split.
        """
        return self._loader(split, train=False, whole=whole)

    def _check_split(self, split: str, otherwise: str = "") -> None:
        """Refuse a split without samples; ``otherwise`` says what else can be done."""
        self.setup()
        if not any(source.num_samples(split) for source in self.sources):
            there = sorted({name for source in self.sources for name, shards in source.splits.items() if shards})
            said = f"no samples of split {split!r} in {', '.join(self.shards)}; splits there: {', '.join(there) or 'none'}."
            raise ValueError(f"{said} {otherwise}".rstrip())

    def _loader(self, split: str, train: bool, whole: bool = False) -> EpochLoader:
        self._check_split(split)
        rank, world_size = (0, 1) if self.trainer is None or whole else (self.trainer.global_rank, self.trainer.world_size)
        sizes = [[shard.samples for shard in source.shards(split)] for source in self.sources]
        plan = EpochPlan(sizes, train, self.seed, self.shuffle_buffer, self.mixture)
        shards = OpenShards(self.sources, split, self.cache)
        by_tokens = train and self.max_tokens is not None
        batching = self._token_batches(plan, shards, world_size) if by_tokens else self._fixed_batches(plan, world_size)
        stream = ShardStream(shards, plan, batching, self._preparation(split, train), rank)
        # Lightning cannot know that the length given by the plan is exact
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        return EpochLoader(
            stream,
            BadSamples(self.on_error, self.max_bad_fraction, self._listing(rank)),
            epoch_of=self._trainer_epoch if train and self.trainer is not None else None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # a loader draws from it: the global one stays untouched
        )

    def _preparation(self, split: str, train: bool) -> SamplePreparation:
        transforms = self.transforms or {}
        stored = StoredViews(self.stored, transforms, split, train) if self.stored else None
        return SamplePreparation(transforms, self.classes, self.seed, train, stored, self.tags)

    def _fixed_batches(self, plan: EpochPlan, world_size: int) -> Batching:
        size = self.batch_size if plan.train or self.eval_batch_size is None else self.eval_batch_size
        return FixedBatches(plan.num_samples, world_size, size, drop_last=plan.train and self.drop_last)

    def _token_batches(self, plan: EpochPlan, shards: OpenShards, world_size: int) -> Batching:
        if self.count_tokens is None:
            raise ValueError("max_tokens needs count_tokens: pass the model's token_counter (the command line does).")
        lengths = Lengths(shards, self._preparation(shards.split, train=False), self.count_tokens, self.num_workers)
        in_order = partial(lengths.in_order, plan)
        return TokenBatches(plan.num_samples, world_size, in_order, lengths.most_tokens(plan), lengths.longest, self.max_tokens or 0)

    def _listing(self, rank: int) -> Path | None:
        if self.trainer is None:
            return None
        return Path(self.trainer.default_root_dir) / ("bad_samples.csv" if rank == 0 else f"bad_samples.{rank}.csv")

    def _trainer_epoch(self) -> int:
        return 0 if self.trainer is None else self.trainer.current_epoch
