"""Features of the items of one modality, from a saved model or a run.

Letters in shapes: b items.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from multimodal.batch import Batch, Items
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.streaming.bad_samples import OnError
from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe
from multimodal.pretrained import PretrainedModel, from_pretrained
from multimodal.pretrained.commands import is_run, model_of_run
from multimodal.protocols import Transform
from multimodal.training.layer_features import InputTokens as Part
from multimodal.training.layer_features import Layer, VectorOf, chosen_layers, encode_layers, vectors_of

VectorOrTokens = VectorOf | Literal["none"]
"""What is read of an item: one vector, or all its tokens, class and register tokens left out."""
VECTORS = (*get_args(VectorOf), "none")


@dataclass(frozen=True)
class FeatureSettings:
    """Which features; small, so that every process can build its own reader.

    Args:
        source: folder of a saved model or of a run, or a foreign checkpoint.
        modality: its name in the model; None: the only one.
        layers: their numbers, from 0, negative ones from the end, or "out" for the encoder's output; "all".
        vector: what is read: "mean" of the tokens, the "class" token, "class_and_mean" side by side, or "none": all tokens.
        transform: YAML file that says how files are read; None: the model says it.
        device: where the encoder runs, "cpu" or "cuda".

    Raises:
        ValueError: another vector or device, or a device that is not there.
    """

    source: str
    modality: str | None = None
    layers: tuple[Layer, ...] | Literal["all"] = ("out",)
    vector: VectorOrTokens = "mean"
    transform: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.vector not in VECTORS:
            raise ValueError(f"features are one of {', '.join(VECTORS)} of an item's tokens, got {self.vector!r}.")
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, got {self.device!r}.")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"device {self.device!r}: this machine has no CUDA device that torch can use.")


class FeatureReader:
    """Reads features of items; those of an item do not depend on the rest of its batch.

    Args:
        settings: which.

    Raises:
        ValueError: no such model, modality, layer or transform, or a class token that the encoder does not have.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        self.settings = settings
        self.model = load_model(settings.source).to(settings.device)
        self.modality = self.model.only_modality(settings.modality)
        self.layers = chosen_layers(self.model.encoder, settings.layers)
        self.transform = self._transform()
        if settings.vector == "class" and self.model.encoder.special is None:
            raise ValueError(f"the encoder of {settings.source} has no class token: read the mean.")

    def _transform(self) -> Transform:
        if self.settings.transform is not None:
            return TokenizerRecipe.from_files(self.settings.transform, None).build()[0]
        if self.modality not in self.model.settings.transforms:
            raise ValueError(f"{self.settings.source} does not say how files of {self.modality!r} are read: name a --transform FILE.")
        return self.model.transform(self.modality)

    @torch.inference_mode()
    def __call__(self, items: Items) -> dict[Layer, list[Tensor]]:
        """Return layer -> the features of each item, float32, on the CPU: ``(width,)``, or ``(tokens, width)`` of all tokens."""
        items = items.map_tensors(lambda x: x.to(self.settings.device))
        embed = cast(Any, self.model.embeds[self.modality])
        tokens = embed.tokens(items.values, items.lengths)
        part = Part(embed(tokens), tokens.item, tokens.coordinates, self.model.settings.experts.get(self.modality, 0))
        encoded = encode_layers(self.model.encoder, [part], self.layers)
        if self.settings.vector == "none":
            lengths = tokens.lengths.tolist()
            return {layer: list(x.tokens.float().cpu().split(lengths)) for layer, x in encoded.items()}
        vector = cast(VectorOf, self.settings.vector)
        return {layer: list(vectors_of(x, part.sequence, len(items), vector).float().cpu()) for layer, x in encoded.items()}

    def fingerprint(self) -> str:
        """Return a hash (hex) of the model's settings and weights."""
        digest = hashlib.sha256(json.dumps(self.model.settings.to_json(), sort_keys=True).encode())
        for name, x in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


@lru_cache(maxsize=1)
def cached_reader(settings: FeatureSettings) -> FeatureReader:
    """Return the reader; kept for the next shard of the process."""
    return FeatureReader(settings)


def load_model(source: str) -> PretrainedModel:
    """Return a saved model, that of a run, or a foreign checkpoint, in evaluation mode.

    Raises:
        ValueError: there is none, or it is no encoder.
    """
    model = model_of_run(source) if is_run(Path(source)) else from_pretrained(source)
    if not isinstance(model, PretrainedModel):
        raise ValueError(f"{source} holds a {type(model).__name__}, not an encoder.")
    return model.eval()


@dataclass(frozen=True)
class ReadOptions:
    """How shards are read.

    Args:
        batch_size: items that the encoder gets at once.
        num_workers: reading processes; 0 reads in this one.
        on_error: whether a bad sample stops the run, or is left out and counted.
    """

    batch_size: int = 64
    num_workers: int = 0
    on_error: OnError = "raise"


def shard_batches(reader: FeatureReader, shards: Sequence[str], options: ReadOptions) -> ShardDataModule:
    """Return the data module that reads shards for a reader.

    Raises:
        ValueError: an option outside its range, or shards without the field that the transform reads.
    """
    data = ShardDataModule(
        list(shards),
        {reader.modality: reader.transform},
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        on_error=options.on_error,
        max_bad_fraction=1.0,  # they are counted, and the user told
    )
    data.setup()
    return data


def split_features(
    reader: FeatureReader, batches: Iterator[Batch], listener: Callable[[int], object] | None = None
) -> Iterator[tuple[Batch, list[int], Mapping[Layer, list[Tensor]]]]:
    """Yield batches, the numbers of their samples that have the modality, and layer -> the features of these.

    Args:
        reader: of features.
        batches: of a split, in the order of its shards.
        listener: told the number of samples after each batch.
    """
    for batch in batches:
        items = batch.items.get(reader.modality)
        if items is not None:
            yield batch, items.sample.tolist(), reader(items)
        if listener is not None:
            listener(batch.num_samples)
