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

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, samples: int, size: int = 0) -> None:
        """Note samples that are done."""
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, advance=samples, rate="" if speed is None else f"{speed:,.0f} samples/s")
