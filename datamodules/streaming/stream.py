"""The data set that yields whole batches, and its loader, which can stop and go on at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data._utils.signal_handling import _remove_worker_pids

from multimodal.batch import Batch, Sample, collate
from multimodal.datamodules.shards.cache import OpenShards
from multimodal.datamodules.shards.keys import stable_hash
from multimodal.datamodules.streaming.bad_samples import BadSamples
from multimodal.datamodules.streaming.batching import Batching
from multimodal.datamodules.streaming.plan import EpochPlan, Reads
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.errors import SampleError


@dataclass(frozen=True)
class Delivery:
    """What a worker hands over for one step.

    Args:
        batch: the good samples.
        read: number of samples planned.
        problems: one error for each bad sample.
        error: what stopped the worker: torch would turn it into a RuntimeError that has lost its parts.
    """

    batch: Batch
    read: int = 0
    problems: tuple[SampleError, ...] = ()
    error: ValueError | None = None

    def pin_memory(self) -> Delivery:
        """Return the same with the batch in page-locked memory (called by ``DataLoader(pin_memory=True)``)."""
        return replace(self, batch=self.batch.pin_memory())


class ShardStream(IterableDataset):
    """The batches of one split on one rank.

    A batch holds the samples planned for it less the bad ones, so bad samples change no other batch; if all are bad it is empty.

    Args:
        shards: where the samples lie.
        plan: the order.
        batching: how the order is cut; made for the same number of samples.
        preparation: from bytes to samples.
        rank: of this process.
    """

    def __init__(self, shards: OpenShards, plan: EpochPlan, batching: Batching, preparation: SamplePreparation, rank: int = 0) -> None:
        super().__init__()
        self.shards, self.plan, self.batching, self.preparation, self.rank = shards, plan, batching, preparation, rank
        self._start = torch.zeros(3, dtype=torch.int64).share_memory_()  # workers outlive an epoch and must see its number
        self._reading = torch.full((1, 2), -1).share_memory_()  # for each worker: source and shard that it reads from

    def __len__(self) -> int:
        return self.batching.num_steps

    def start(self, epoch: int, step: int, place: int) -> None:
        """Set where the next iteration begins.

        Args:
            epoch: number of the epoch.
            step: first step.
            place: samples before this place of the order are left out: they were read before the run stopped.
        """
        self._start.copy_(torch.tensor([epoch, step, place]))

    def watch(self, num_workers: int) -> None:
        """Make room to note what each of the workers reads."""
        self._reading = torch.full((max(1, num_workers), 2), -1).share_memory_()

    def reading(self, worker: int) -> str:
        """Return the shard that a worker read from last, for the report about its death."""
        source, shard = self._reading[worker].tolist()
        if source < 0:
            return "no shard"
        index = self.shards.sources[source]
        return f"shard {index.location(index.shards(self.shards.split)[shard])}"

    def __iter__(self) -> Iterator[Delivery]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        try:
            yield from self._deliveries(first, every)
        except ValueError as error:
            yield Delivery(collate([]), error=error)

    def _deliveries(self, first: int, every: int) -> Iterator[Delivery]:
        """Yield every ``every``-th batch; the loader takes them from its workers in turn."""
        epoch, start, place = self._start.tolist()
        bounds = self.batching.bounds(epoch)
        prefetch = _Prefetch(self.shards, self.plan, epoch)
        for step in range(start + first, len(self), every):
            batch = step * self.batching.world_size + self.rank
            begin, end = (max(int(bound), place) for bound in bounds[batch : batch + 2])
            prefetch.look_ahead(begin, end)
            results = [self._sample(first, *read) for read in self._numbers(epoch, begin, end)]
            problems = tuple(result for result in results if isinstance(result, SampleError))
            yield Delivery(collate([result for result in results if isinstance(result, Sample)]), len(results), problems)

    def _numbers(self, epoch: int, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield source, turn, shard and position of the samples between two places."""
        reads: Reads = self.plan.reads(epoch, np.arange(begin, end))
        yield from zip(*(numbers.tolist() for numbers in reads), strict=True)

    def _sample(self, worker: int, source: int, turn: int, shard: int, position: int) -> Sample | SampleError:
        self._reading[worker, 0], self._reading[worker, 1] = source, shard
        reader = self.shards.reader(source, shard)
        raw = reader.read(position, self.preparation.wanted(source, turn, reader.key(position)))
        if isinstance(raw, SampleError):
            return raw
        try:
            return self.preparation(raw, source, turn)
        except SampleError as error:
            return error


class _Prefetch:
    """Fetch remote shards about a shuffle buffer before their first sample is read."""

    def __init__(self, shards: OpenShards, plan: EpochPlan, epoch: int) -> None:
        self.shards, self.plan, self.epoch = shards, plan, epoch
        self.pool = ThreadPoolExecutor(4) if any(source.url for source in shards.sources) else None
        self.asked: dict[tuple[int, int], Future[Any]] = {}

    def look_ahead(self, begin: int, end: int) -> None:
        """Ask for the shards of the batch that stands a shuffle buffer after this one."""
        if self.pool is None:
            return
        places = np.arange(begin, end) + max(self.plan.shuffle_buffer, 1)
        reads = self.plan.reads(self.epoch, places[places < self.plan.num_samples])
        for shard in set(zip(reads.source.tolist(), reads.shard.tolist(), strict=True)):
            if shard not in self.asked and self.shards.sources[shard[0]].url:
                self.asked[shard] = self.pool.submit(self.shards.fetch, *shard)  # an error comes again when the shard is read


class EpochLoader(DataLoader):
    """A loader over a ``ShardStream`` that knows where it stands.

    ``state_dict`` is a few numbers. After ``load_state_dict`` the next iteration goes on with the step that follows, whatever the number of
    workers; with another number of ranks or batch size, the samples that remain are cut anew and its first batches may be smaller.

    Args:
        dataset: the stream.
        bad: what to do about bad samples.
        epoch_of: gives the epoch of the iteration that starts; None: iterations are counted.
        options: of ``torch.utils.data.DataLoader``.
    """

    dataset: ShardStream

    def __init__(
        self,
        dataset: ShardStream,
        bad: BadSamples,
        epoch_of: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dataset=dataset, batch_size=None, **options)
        dataset.watch(self.num_workers)
        self.bad, self.epoch_of = bad, epoch_of
        self._epoch, self._step, self._place = -1, 0, 0
        self._resume: tuple[int, int] | None = None

    def signature(self) -> dict[str, Any]:
        """Return what decides the order: a state belongs to one signature."""
        plan, sources = self.dataset.plan, self.dataset.shards.sources
        shards = [[(shard.samples, shard.sha256) for shard in source.shards(self.dataset.shards.split)] for source in sources]
        return {
            "seed": plan.seed,
            "shuffle_buffer": plan.shuffle_buffer,
            "samples of each source": list(plan.source_sizes),
            "samples of each source in an epoch": list(plan.counts),
            "hash of the shards": f"{stable_hash(shards):016x}",
        }

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands: after the last batch it has handed out."""
        return {"epoch": self._epoch, "step": self._step, "place": self._place, "signature": self.signature()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from a state.

        Raises:
            ValueError: the state belongs to other data or to another order; the message names what differs.
        """
        mine, saved = self.signature(), state["signature"]
        differing = [name for name in mine if mine[name] != saved.get(name)]
        if differing:
            told = "; ".join(f"{name}: {_short(saved.get(name))} then, {_short(mine[name])} now" for name in differing)
            raise ValueError(f"the stream cannot go on where the checkpoint stopped, the data or their order are others: {told}.")
        self._epoch, self._place = self._resume = int(state["epoch"]), int(state["place"])
        self._step = self.dataset.batching.step_of(self._epoch, self._place)

    @property
    def resumed_step(self) -> int | None:
        """The step that the next iteration begins with, where it goes on from a state."""
        return None if self._resume is None else self.dataset.batching.step_of(*self._resume)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._begin()
        self.dataset.start(self._epoch, self._step, self._place)
        return self._batches(super().__iter__())

    def _begin(self) -> None:
        """Set epoch, step and place of the iteration that starts."""
        asked = self._epoch + 1 if self.epoch_of is None else self.epoch_of()
        if not self.dataset.plan.train:
            self._epoch, self._step, self._place = 0, 0, 0
        elif self._resume is not None and (self.epoch_of is None or asked <= self._resume[0]):
            # Kept until a batch is handed out, and whatever epoch a trainer says that has not restored its own count yet: Lightning begins
            # the iteration that it goes on with before it does.
            self._epoch, self._place = self._resume
            self._step = self.dataset.batching.step_of(*self._resume)
            if self._step == len(self):
                self._epoch, self._step, self._place = self._epoch + 1, 0, 0
        else:
            self._epoch, self._step, self._place = asked, 0, 0
        self.bad.start(whole=self._step == 0)  # counted anew where an epoch goes on: its state is that of one rank, and each counts its own

    def _batches(self, deliveries: Iterator[Delivery]) -> Iterator[Batch]:
        bounds = self.dataset.batching.bounds(self._epoch)[:: self.dataset.batching.world_size]
        try:
            for delivery in deliveries:
                if delivery.error is not None:
                    raise delivery.error
                self._resume = None
                self.bad.count(delivery.read, delivery.problems)
                self._step += 1
                self._place = int(bounds[self._step])
                if self._step == len(self):
                    self.bad.finish()
                yield delivery.batch
        except ValueError:
            self._iterator = None
            del deliveries  # with the line before: the workers end now, not when the traceback is forgotten
            raise
        except (RuntimeError, OSError, EOFError) as error:  # the last two where a worker died while it handed over a batch
            raise self._told(error, deliveries) from error

    def _told(self, error: Exception, deliveries: Any) -> RuntimeError:
        """Return an error that says what workers that died were reading: torch tells no more than their numbers."""
        self._iterator = None
        workers = getattr(deliveries, "_workers", [])
        if workers and deliveries._worker_pids_set:
            _remove_worker_pids(id(deliveries))  # else torch raises again, at any later moment, from a signal handler
            deliveries._worker_pids_set = False
        gone = wait([worker.sentinel for worker in workers], timeout=2)
        for worker in workers:
            if worker.sentinel in gone:
                worker.join(10)  # its files are closed before it has an exit code, long before where the machine is busy
        dead = [number for number, worker in enumerate(workers) if worker.exitcode not in (None, 0)]
        with suppress(AttributeError, RuntimeError):
            deliveries._shutdown_workers()
        told = "".join(f" Worker {number} was reading {self.dataset.reading(number)}." for number in dead)
        return RuntimeError(f"a worker has died: {error}.{told}" if dead else str(error))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
