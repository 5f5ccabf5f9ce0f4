"""Features, ids or texts of a split, as files."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

FOLDER = "predictions"


class PredictionWriter(L.Callback):
    """Write what ``predict`` returns to ``RUN/predictions/<modality>.npy``, a row for each line of ``<modality>.keys.txt``.

    ``predict_step`` returns modality -> (keys, tensor). What it returns as (keys, list), of texts or of anything else that JSON has, is
    written to ``<modality>.jsonl``, on each line an object with ``key`` and ``<modality>``. With several processes each writes its own
    part, ``<modality>.<rank>.npy``.
    """

    def __init__(self) -> None:
        self._keys: dict[str, list[str]] = defaultdict(list)
        self._rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self._texts: dict[str, list[tuple[str, Any]]] = defaultdict(list)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a batch."""
        for name, (keys, values) in outputs.items():
            if isinstance(values, list):
                self._texts[name] += zip(keys, values, strict=True)
                continue
            self._keys[name] += keys
            self._rows[name].append(values.cpu().numpy())

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the files and say where."""
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        part = "" if trainer.world_size == 1 else f".{trainer.global_rank}"
        for name, texts in self._texts.items():
            lines = [json.dumps({"key": key, name: text}, ensure_ascii=False) for key, text in texts]
            path = folder / f"{name}{part}.jsonl"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            print(f"{path}: {len(lines)} lines")
        for name, rows in self._rows.items():
            stem = f"{name}{part}"
            array = np.concatenate(rows)
            np.save(folder / f"{stem}.npy", array)
            (folder / f"{stem}.keys.txt").write_text("".join(f"{key}\n" for key in self._keys[name]))
            print(f"{folder / stem}.npy: {' x '.join(map(str, array.shape))} {array.dtype}")
        self._keys.clear()
        self._rows.clear()
        self._texts.clear()
