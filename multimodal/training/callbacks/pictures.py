"""Grids of what went in, what was hidden and what was predicted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw
from torch import Tensor

from multimodal.batch import Batch
from multimodal.training.sharding import is_sharded

FOLDER = "pictures"
MARGIN, TITLE_HEIGHT = 6, 16
NOTHING = Batch({}, ())


class PictureLogger(L.Callback):
    """Draw some validation items at every validation, to ``RUN/pictures/<modality>/step-<step>.png`` and to TensorBoard.

    Items and masks are the same each time, so that the pictures of one run can be compared. The model draws by its ``pictures`` method; of
    a model that draws nothing, for want of a renderer, it warns once.

    Args:
        count: items of each modality, at least 1, from as many batches as it takes.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, count: int = 6) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}; leave the callback out to draw nothing.")
        self.count, self._warned = count, False
        self._batches: dict[str, list[Batch]] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first batches in which each modality occurs, until they hold enough items."""
        for name in batch.items:
            kept = self._batches.setdefault(name, [])
            if sum(len(earlier.items[name]) for earlier in kept) < self.count:
                kept.append(batch)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        batches, self._batches = self._batches, {}
        sharded = is_sharded(pl_module)
        if trainer.sanity_checking or not (trainer.is_global_zero or sharded):
            return
        numbers = {name: len(kept) for name, kept in batches.items()}
        numbers = trainer.strategy.broadcast(numbers) if sharded else numbers  # ranks gather weights together
        drawn = {name: self._rows(pl_module, name, batches.get(name, []), number) for name, number in numbers.items()}
        if not trainer.is_global_zero:
            return
        for name, rows in drawn.items():
            if rows:
                self._save(trainer, name, picture_grid(rows))
        if drawn and not any(drawn.values()):
            self._warn()

    def _rows(self, model: L.LightningModule, name: str, batches: Sequence[Batch], number: int) -> list[Mapping[str, Tensor]]:
        """Return pictures of the items of one modality in this number of batches."""
        rows: list[Mapping[str, Tensor]] = []
        for place in range(number):
            batch = batches[place] if place < len(batches) else NOTHING
            rows += model.pictures(batch, max(self.count - len(rows), 1)).get(name, [])
        return rows

    def _warn(self) -> None:
        if not self._warned:
            warnings.warn("PictureLogger draws nothing: no modality has a renderer. Set one, or leave the callback out.", stacklevel=2)
        self._warned = True

    def _save(self, trainer: L.Trainer, name: str, picture: Image.Image) -> None:
        path = Path(trainer.default_root_dir) / FOLDER / name / f"step-{trainer.global_step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, np.asarray(picture), trainer.global_step, dataformats="HWC")


def picture_grid(rows: Sequence[Mapping[str, Tensor]]) -> Image.Image:
    """Return one picture: a row for each item, a titled column for each picture of it.

    Args:
        rows: for each item, title -> ``(3, height, width)`` uint8; the titles that all rows have are shown.
    """
    titles = [title for title in rows[0] if all(title in row for row in rows)]
    widths = [max(row[title].shape[2] for row in rows) for title in titles]
    heights = [max(picture.shape[1] for picture in row.values()) for row in rows]
    size = sum(widths) + MARGIN * (len(widths) + 1), TITLE_HEIGHT + sum(heights) + MARGIN * (len(heights) + 1)
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    left = MARGIN
    for title, width in zip(titles, widths, strict=True):
        draw.text((left, 2), title, fill="black")
        top = TITLE_HEIGHT + MARGIN
        for row, height in zip(rows, heights, strict=True):
            grid.paste(Image.fromarray(row[title].permute(1, 2, 0).cpu().numpy()), (left, top))
            top += height + MARGIN
        left += width + MARGIN
    return grid
