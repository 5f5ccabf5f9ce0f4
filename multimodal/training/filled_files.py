"""What a pretrained model fills in, as files.

Letters in shapes: n tokens of one item, k fields.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from multimodal.atomic import atomic_file
from multimodal.batch import Batch
from multimodal.datamodules.shards.keys import clean_key
from multimodal.filling import Filling
from multimodal.modality import Input, Modality
from multimodal.training.callbacks.pictures import picture_grid
from multimodal.training.encoder_training import EncoderTraining


class FilledFiles:
    """Fills in the items of batches and writes each as a file, ``FOLDER/<key>.<extension>``, with a picture of it where wanted.

    The extension is that of the tokenizer's ``file_of``: ``mid``, ``txt``; ids that cannot be made such a file are written as ``.npy``.

    Args:
        filling: what to hide, and how to fill it in.
        name: of the modality.
        folder: made if needed.

    Raises:
        ValueError: the folder holds files already, which are not to be replaced.
    """

    def __init__(self, filling: Filling, name: str, folder: Path) -> None:
        if not filling.overwrite and folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} holds files already: give another folder with --run, or set overwrite of the filling to true.")
        self.filling, self.name, self.folder = filling, name, folder
        self._files = self._untouched = self._hidden = self._tokens = 0

    def write(self, model: EncoderTraining, batch: Batch) -> None:
        """Fill in the items of a batch and write them.

        Raises:
            ValueError: as ``Filling.fill``; or samples have other modalities beside items that are cut into windows.
        """
        items = batch.items.get(self.name)
        if items is None:
            return
        others = {name: cast(Input, model.modalities[name]).plain_tokens(own) for name, own in batch.items.items() if name != self.name}
        if others and self.filling.window is not None:
            raise ValueError(f"samples have {', '.join(others)} beside {self.name!r}, which belong to no window of it: set window to null.")
        unwanted = torch.zeros(sum(len(own[1]) for own in others.values()), dtype=torch.bool, device=model.device)

        def encode(part: tuple[Tensor, Tensor, Tensor], wanted: Tensor) -> Tensor:
            return model.encode({self.name: part, **others}, wanted=torch.cat([wanted, unwanted])).tokens

        modality = cast(Modality, model.modalities[self.name])
        filled = self.filling.fill(modality, items, encode)
        keys = [batch.keys[number] for number in items.sample.tolist()]
        lengths = filled.lengths.tolist()
        values = items.values if items.lengths is None else items.values.split(items.lengths.tolist())
        for key, own_values, *own in zip(
            keys, values, filled.truth.split(lengths), filled.ids.split(lengths), filled.hidden.split(lengths), strict=True
        ):
            self._write(key, modality, own_values, *own)

    def _write(self, key: str, modality: Modality, values: Tensor, truth: Tensor, ids: Tensor, hidden: Tensor) -> None:
        tokens = hidden.view(len(hidden), -1).any(1)
        self._files += 1
        self._tokens += len(tokens)
        self._hidden += int(tokens.sum())
        self._untouched += not bool(tokens.any())
        assert modality.tokenizer is not None
        extension, data = modality.tokenizer.file_of(ids) or ("npy", _array_file(ids))
        self._save(key, extension, data)
        if self.filling.pictures:
            assert modality.renderer is not None
            picture = io.BytesIO()
            picture_grid([modality.renderer.render(modality.tokenizer, values, truth, ids, tokens)]).save(picture, "png")
            self._save(key, "png", picture.getvalue())

    def _save(self, key: str, extension: str, data: bytes) -> None:
        path = self.folder / f"{clean_key(key)}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(data)

    def summary(self) -> str:
        """Return what was written, in one line."""
        said = f"{self.folder}: {self._files:,} files, {self._hidden:,} of {self._tokens:,} tokens filled in"
        return said + (f"; in {self._untouched:,} files nothing was hidden" if self._untouched else "")


def _array_file(ids: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, ids.cpu().numpy())
    return file.getvalue()
