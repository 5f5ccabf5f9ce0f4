"""Time ways to do the same work, in turn, and show how many times faster the first is.

A machine that others use too slows down and speeds up; so the candidates run one after the other in each round, starting with another
one each time, and only figures of one round are divided by each other.
"""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.table import Table

Candidate = Callable[[], int]


@dataclass(frozen=True)
class Speeds:
    """What was measured of one candidate.

    Args:
        name: of the candidate.
        per_second: units done per second, one figure for each round.
    """

    name: str
    per_second: tuple[float, ...]

    @property
    def median(self) -> float:
        """Units per second, the median of the rounds."""
        return statistics.median(self.per_second)

    @property
    def spread(self) -> float:
        """The widest distance from the median, as a share of it."""
        return max(abs(speed - self.median) for speed in self.per_second) / self.median

    def ratios(self, peer: Speeds) -> list[float]:
        """How many times as fast as ``peer`` this was, in each round."""
        return [own / other for own, other in zip(self.per_second, peer.per_second, strict=True)]


def compare(candidates: Mapping[str, Candidate], unit: str, rounds: int = 5, wall: bool = False, title: str = "") -> Table:
    """Measure the candidates in turn and return a table; the first is ours, and is divided by each of the others.

    Args:
        candidates: name -> a call that does the work once and returns the number of units done.
        unit: what is counted, in the plural: ``images``.
        rounds: how often each candidate is timed, after one call that is not. At least 1.
        wall: elapsed time; otherwise seconds of processor time, of this process and of those that it has started and that have ended.
        title: of the table.

    Raises:
        ValueError: fewer than one round or candidate, or a candidate that did nothing.
    """
    return table(measure(candidates, rounds, wall), unit, wall, title)


def measure(candidates: Mapping[str, Candidate], rounds: int = 5, wall: bool = False) -> list[Speeds]:
    """Return the speeds of each candidate; see ``compare``."""
    if rounds < 1 or not candidates:
        raise ValueError(f"at least one round and one candidate are wanted, got {rounds} rounds and {len(candidates)} candidates.")
    names, clock = list(candidates), time.perf_counter if wall else cpu_seconds
    for name, candidate in candidates.items():
        _speed(name, candidate, clock)  # fills caches and loads libraries
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            speeds[name].append(_speed(name, candidates[name], clock))
    return [Speeds(name, tuple(measured)) for name, measured in speeds.items()]


def table(speeds: Iterable[Speeds], unit: str, wall: bool = False, title: str = "") -> Table:
    """Return a table of measured speeds; the ratios are the first candidate's speed over that of each line."""
    ours, *peers = speeds
    shown = Table("", f"{unit}/{'s' if wall else 'CPU-s'}", "spread", f"{ours.name} is faster by", "in the rounds", title=title or None)
    for one in (ours, *peers):
        ratios = ours.ratios(one)
        factor, extent = f"{statistics.median(ratios):.2f}x", f"{min(ratios):.2f} to {max(ratios):.2f}"
        shown.add_row(
            one.name,
            f"{one.median:,.{0 if one.median >= 100 else 2}f}",
            f"±{one.spread:.0%}",
            *(("", "") if one is ours else (factor, extent)),
        )
    return shown


def cpu_seconds() -> float:
    """Return the processor time of this process and of its ended children, user and system."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def machine(packages: Iterable[str] = ()) -> str:
    """Return one line about processor, threads and versions, to stand below a table; packages not installed are named as absent."""
    return ", ".join(
        [_processor(), f"{torch.get_num_threads()} thread(s)", f"Python {platform.python_version()}", *map(_version, packages)]
    )


def _speed(name: str, candidate: Candidate, clock: Callable[[], float]) -> float:
    start = clock()
    done = candidate()
    seconds = clock() - start
    if done < 1:
        raise ValueError(f"{name} did no work: it returned {done} units.")
    return done / max(seconds, 1e-9)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} absent"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
