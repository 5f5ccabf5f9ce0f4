"""What is known of the clips of a film, as one file: when they are, their features, their ids.

A film is cut into clips of some frames, most often one after the other. The file is a safetensors file, kept as the field
``clips.safetensors`` of a sample; nothing in it is run.

Letters in shapes: n clips, d width of the features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

FIELD = "clips.safetensors"
EXTRACTOR, TOKENIZER = "extractor", "tokenizer"
FLOATS = (torch.float16, torch.float32)
KINDS = {"starts": ((torch.float32,), 1), "ends": ((torch.float32,), 1), "features": (FLOATS, 2), "ids": ((torch.int64,), 1)}
"""Name of a tensor -> its types, and number of axes."""


@dataclass(frozen=True)
class Clips:
    """The clips of one film, by time.

    Args:
        starts: ``(n,)`` float32 seconds from the film's first picture, ascending.
        ends: ``(n,)`` float32 seconds, after ``starts``.
        features: ``(n, d)`` float16 or float32, what an extractor made of each clip; None: not kept.
        ids: ``(n,)`` int64, the cluster of each; None: not told yet.
        extractor: fingerprint (hex) of what made the features.
        tokenizer: fingerprint (hex) of what made the ids; empty without ids.

    Raises:
        ValueError: the parts do not fit each other, times do not ascend or are not finite, or there are neither features nor ids.
    """

    starts: Tensor
    ends: Tensor
    features: Tensor | None = None
    ids: Tensor | None = None
    extractor: str = ""
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.features is None and self.ids is None:
            raise ValueError("clips need features or ids; neither is there.")
        for name, values in (("ends", self.ends), ("features", self.features), ("ids", self.ids)):
            if values is not None and len(values) != len(self.starts):
                raise ValueError(f"{len(self.starts)} clips have {len(values)} {name}.")
        ordered = bool((self.starts[1:] >= self.starts[:-1]).all() and (self.ends > self.starts).all())
        if not (ordered and bool(self.starts.isfinite().all()) and bool(self.ends.isfinite().all())):
            raise ValueError("the times of clips must be finite and ascend, and each must end after it starts.")
        if self.features is not None and not bool(self.features.isfinite().all()):
            raise ValueError("features of clips must be finite; some are not.")

    def __len__(self) -> int:
        return len(self.starts)


def write_clips(clips: Clips) -> bytes:
    """Return the file; equal clips give equal bytes."""
    tensors = {"starts": clips.starts, "ends": clips.ends, "features": clips.features, "ids": clips.ids}
    there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    return _in_order(save(there, {EXTRACTOR: clips.extractor, TOKENIZER: clips.tokenizer}))


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with the entries beside the tensors in order: the library writes them in another one each time."""
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    return data[:8] + text + data[8 + length :]


def read_clips(data: bytes) -> Clips:
    """Return the clips.

    Raises:
        ValueError: the file is damaged, or not of this kind; the message says which.
    """
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}.") from None
    for names, what in ((set(KINDS) - {"features", "ids"} - tensors.keys(), "missing"), (tensors.keys() - KINDS.keys(), "unknown")):
        if names:
            raise ValueError(f"not a file of clips: {min(names)!r} is {what}.")
    for name, tensor in tensors.items():
        types, axes = KINDS[name]
        if tensor.dtype not in types or tensor.ndim != axes:
            raise ValueError(f"not a file of clips: {name} are {tensor.dtype} of shape {tuple(tensor.shape)}.")
    said = _metadata(data)
    return Clips(**tensors, extractor=said.get(EXTRACTOR, ""), tokenizer=said.get(TOKENIZER, ""))


def _metadata(data: bytes) -> dict[str, str]:
    """Return what the head of a safetensors file that was read before says beside the tensors."""
    length = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return found
