"""What to do about samples that cannot be used: stop, or leave them out, list them and stop when they are too many."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from multimodal.errors import SampleError

OnError = Literal["raise", "skip"]
LEAST_READ = 100
CHANCE = 1e-4
"""Within an epoch the run stops where so many bad samples are less likely than this, if the allowed share of all samples is bad."""


class BadSampleWarning(UserWarning):
    """Samples were left out."""


class BadSamples:
    """Count the samples of one rank.

    Args:
        on_error: "raise" stops at the first bad one; "skip" warns once for each kind of reason, and at the end of an epoch of all.
        max_fraction: the share of the samples read that may be bad. At the end of an epoch that was read from its start it is exact; within
            an epoch, once 100 are read, and at the end of one that goes on, the run stops where chance does not explain what is above it.
        listing: file to which every bad sample is added once: shard, key, field, reason, as CSV; None: no list.
    """

    def __init__(self, on_error: OnError = "raise", max_fraction: float = 0.01, listing: Path | None = None) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
        if not 0 <= max_fraction <= 1:
            raise ValueError(f"max_bad_fraction must be in [0, 1], got {max_fraction}.")
        self.on_error, self.max_fraction, self.listing = on_error, max_fraction, listing
        self.start()
        self.last: SampleError | None = None
        self._warned: set[str] = set()
        self._listed: set[tuple[str, str, str]] = set()

    @property
    def bad(self) -> int:
        """Bad samples since the start of the epoch."""
        return self.reasons.total()

    def start(self, whole: bool = True) -> None:
        """Begin to count anew, at the start of an epoch (``whole``) or where a stopped one goes on."""
        self.read, self.whole = 0, whole
        self.reasons: Counter[str] = Counter()

    def count(self, read: int, problems: Sequence[SampleError]) -> None:
        """Note a batch.

        Args:
            read: samples read for it, bad ones included.
            problems: one error for each bad one.

        Raises:
            SampleError: the first of ``problems``, where the first one stops.
            ValueError: too many samples are bad.
        """
        if problems and self.on_error == "raise":
            raise problems[0]
        self.read += read
        for error in problems:
            self._note(error)
        self._check()

    def finish(self) -> None:
        """Check the share at the end of an epoch, exactly and however few samples there are in a whole one, and say what was left out."""
        if self.whole and self.bad > self.max_fraction * self.read:
            self._stop()
        self._check()
        if self.bad:
            kinds = "; ".join(f"{count} x {kind}" for kind, count in self.reasons.most_common(5))
            listed = f"; all are in {self.listing}" if self.listing else ""
            message = f"left out {self.bad} of the {self.read} samples read in this epoch: {kinds}{listed}"
            warnings.warn(message, BadSampleWarning, stacklevel=2)

    def _note(self, error: SampleError) -> None:
        kind = f"{error.field}: " + re.sub(r"'[^']*'|\d+", "_", error.reason)
        self.reasons[kind] += 1
        self.last = error
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"left out (told once for each kind of reason): {error}", BadSampleWarning, stacklevel=2)
        place = (error.shard, error.key, error.field)
        if self.listing and place not in self._listed:
            self._listed.add(place)
            self.listing.parent.mkdir(parents=True, exist_ok=True)
            with self.listing.open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
                csv.writer(file).writerow([error.shard, error.key, error.field, error.reason])

    def _check(self) -> None:
        """Stop where more are bad than chance explains: a few of the first hundred may be, in one of the many epochs of a run."""
        if self.read >= LEAST_READ and _chance(self.bad, self.read, self.max_fraction) < CHANCE:
            self._stop()

    def _stop(self) -> None:
        raise ValueError(
            f"{self.bad} of {self.read} samples read could not be used, more than max_bad_fraction={self.max_fraction:g} allows; "
            f"the last: {self.last}"
        )


def _chance(bad: int, read: int, share: float) -> float:
    """Return a bound of how likely ``bad`` or more of ``read`` samples are, where each is so with probability ``share`` (Chernoff)."""
    found = bad / read
    if found <= share:
        return 1.0
    if share == 0:
        return 0.0
    rest = (1 - found) * math.log((1 - found) / (1 - share)) if found < 1 else 0.0
    return math.exp(-read * (found * math.log(found / share) + rest))
