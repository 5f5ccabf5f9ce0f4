"""The progress bar of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console


class ProgressBar:
    """A bar with rate and remaining time; silent where the output is no terminal, since there the summary says it all.

    Args:
        title: what is being done.
        samples: how many there are.
        console: where to draw.
    """

    def __init__(self, title: str, samples: int, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=samples, rate="")
        self.samples, self.bytes = 0, 0

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, samples: int, size: int = 0) -> None:
        """Note samples that are done, and their bytes."""
        self.samples, self.bytes = self.samples + samples, self.bytes + size
        self.bar.update(self.task, advance=samples, rate=self._rate(self.bar.tasks[0].speed))

    def _rate(self, speed: float | None) -> str:
        """Return samples and bytes per second; the latter by the mean size, since samples come and go faster than a clock ticks."""
        if speed is None:
            return ""
        megabytes = speed * self.bytes / max(1, self.samples) / 1e6
        return f"{speed:,.0f} samples/s" + (f", {megabytes:,.1f} MB/s" if self.bytes else "")
