"""Grids of what went in, what was hidden and what was predicted."""

from __future__ import annotations

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

    Items and masks are the same each time, so that the pictures of one run can be compared. The model draws by its ``pictures`` method.

    Args:
        count: items of each modality.
    """

    def __init__(self, count: int = 6) -> None:
        self.count = count
        self._batches: dict[str, Batch] = {}

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first batch in which each modality occurs."""
        for name in batch.items.keys() - self._batches.keys():
            self._batches[name] = batch

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw."""
        batches, self._batches = self._batches, {}
        sharded = is_sharded(pl_module)
        if trainer.sanity_checking or not (trainer.is_global_zero or sharded):
            return
        names = trainer.strategy.broadcast(list(batches)) if sharded else batches  # ranks gather weights together
        for name in names:
            rows = pl_module.pictures(batches.get(name, NOTHING), self.count).get(name, [])
            if rows and trainer.is_global_zero:
                self._save(trainer, name, picture_grid(rows))

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
        rows: for each item, title -> ``(3, height, width)`` uint8; the same titles in each row.
    """
    titles = list(rows[0])
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
