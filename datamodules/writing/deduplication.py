"""Samples whose data are byte for byte those of another one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from multimodal.datamodules.jobs.run_jobs import Advance, Engine, advance, run_jobs
from multimodal.datamodules.writing.sources.samples import FileError, SourceSample

_SAMPLES_A_JOB = 500


def candidates(splits: Mapping[str, Sequence[SourceSample]]) -> list[SourceSample]:
    """Return the samples that can be equal to another: those whose fields have the sizes of another's, metadata alone not counted."""
    sizes = Counter(sample.data_sizes for samples in splits.values() for sample in samples)
    every = (sample for samples in splits.values() for sample in samples)
    return [sample for sample in every if sample.data_sizes is None or (sample.data_sizes and sizes[sample.data_sizes] > 1)]


def deduplicate(
    splits: Mapping[str, list[SourceSample]],
    chosen: Sequence[SourceSample],
    num_workers: int = 0,
    engine: Engine = "local",
    listener: Advance | None = None,
) -> tuple[dict[str, list[SourceSample]], list[str]]:
    """Return the splits with the first of equal samples only, in the order of splits and samples, and a line for each of the others.

    Samples are equal where all their fields are, the metadata left out. One that cannot be read is kept; the writing of it will say so.

    Args:
        splits: split name -> samples in order.
        chosen: the samples that can be equal (``candidates``), which are read.
        num_workers: processes; see ``run_jobs``.
        engine: where they run.
        listener: told of the samples and bytes that were read.
    """
    jobs = [tuple(chosen[start : start + _SAMPLES_A_JOB]) for start in range(0, len(chosen), _SAMPLES_A_JOB)]
    hashes: dict[int, str] = {}
    for number, found in run_jobs(_hashes, jobs, num_workers, engine, listener):
        hashes.update((id(sample), digest) for sample, digest in zip(jobs[number], found, strict=True) if digest)
    first: dict[str, str] = {}
    dropped: list[str] = []
    kept = {split: list(_first(split, samples, hashes, first, dropped)) for split, samples in splits.items()}
    return kept, dropped


def _first(
    split: str, samples: Sequence[SourceSample], hashes: Mapping[int, str], first: dict[str, str], dropped: list[str]
) -> Iterator[SourceSample]:
    for sample in samples:
        digest, name = hashes.get(id(sample)), f"{split}: {sample.key}"
        if digest is None or first.setdefault(digest, name) == name:
            yield sample
        else:
            dropped.append(f"{name} is equal to {first[digest]}")


def _hashes(samples: tuple[SourceSample, ...]) -> list[str]:
    """Return the hash of each sample; "" for one that cannot be read."""
    found = []
    for sample in samples:
        try:
            found.append(sample.data_hash())
        except FileError:
            found.append("")
        advance(1, sample.size)
    return found
