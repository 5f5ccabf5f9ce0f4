"""What to do about samples that cannot be used: stop, or leave them out, count them and stop when they are too many."""

from __future__ import annotations

import re
import warnings
from typing import Literal

from multimodal.errors import SampleError

OnError = Literal["raise", "skip"]
LEAST_READ = 100


class BadSampleWarning(UserWarning):
    """A sample was left out."""


class BadSamples:
    """Count bad samples in one process.

    Args:
        on_error: "raise" stops at the first one; "skip" warns once for each kind of reason.
        max_fraction: the share of the samples read that may be bad, looked at once 100 are read and at the end of an epoch.
    """

    def __init__(self, on_error: OnError = "raise", max_fraction: float = 0.01) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
        if not 0 <= max_fraction <= 1:
            raise ValueError(f"max_bad_fraction must be in [0, 1], got {max_fraction}.")
        self.on_error, self.max_fraction = on_error, max_fraction
        self.read = self.bad = 0
        self.last: SampleError | None = None
        self.warned: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Begin to count anew, at the start of an epoch."""
        self.read = self.bad = 0

    def count_good(self) -> None:
        """Note a sample that was fine."""
        self.read += 1
        self._check(LEAST_READ)

    def count_bad(self, error: SampleError) -> None:
        """Note a bad sample.

        Raises:
            SampleError: ``error``, where the first one stops.
            ValueError: too many samples are bad.
        """
        if self.on_error == "raise":
            raise error
        self.read += 1
        self.bad += 1
        self.last = error
        kind = (error.field, re.sub(r"'[^']*'|\d+", "_", error.reason))
        if kind not in self.warned:
            self.warned.add(kind)
            warnings.warn(f"left out (told once for each kind of reason): {error}", BadSampleWarning, stacklevel=2)
        self._check(LEAST_READ)

    def finish(self) -> None:
        """Check the share at the end of an epoch, however few samples were read."""
        self._check(1)

    def _check(self, least: int) -> None:
        if self.read >= least and self.bad > self.max_fraction * self.read:
            raise ValueError(
                f"{self.bad} of {self.read} samples read could not be used, more than max_bad_fraction={self.max_fraction:g} allows; "
                f"the last: {self.last}"
            )
