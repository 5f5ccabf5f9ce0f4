"""data2vec 2.0 for images (https://arxiv.org/abs/2212.07525) and EAT (https://arxiv.org/abs/2401.03497), which is the same on spectrograms.

Sources: facebookresearch/fairseq ``examples/data2vec/models``; cwx-worst-one/EAT ``models``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, sound, vision
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

EPS = 1e-6
BINS = 128
FRONT = "modality_encoders.IMAGE."
"""Of the first layers; EAT calls spectrograms images too."""
PROJECTION = FRONT + "local_encoder.proj.weight"
DECODER, TEACHER = "the decoder of pretraining, which no later use needs", "the teacher of pretraining, which no later use needs"
POOLS = ("class", "mean")


class Sizes(NamedTuple):
    """What the tensors of a data2vec 2.0 tell.

    Args:
        dim: width.
        early: layers of the modality's own.
        late: layers after those.
        heads: attention heads.
        hidden: width of the MLP.
        patch: side of a patch.
        channels: of the images.
        places: patches of an image or spectrogram.
        classes: of the classifier; 0 without.
        pooled_norm: whether a norm stands before the classifier.
    """

    dim: int
    early: int
    late: int
    heads: int
    hidden: int
    patch: int
    channels: int
    places: int
    classes: int
    pooled_norm: bool


def sizes_in(shapes: Shapes, prefix: str, options: ImportOptions) -> Sizes:
    """Return the sizes of a checkpoint whose names begin with ``prefix``, but for those of the classifier."""
    patch = shapes[prefix + PROJECTION]
    early = rf"{re.escape(prefix + FRONT)}context_encoder\.blocks\.(\d+)\."
    return Sizes(
        dim=patch[0],
        early=count_layers(shapes, early) if any(re.match(early, name) for name in shapes) else 0,
        late=count_layers(shapes, rf"{re.escape(prefix)}blocks\.(\d+)\."),
        heads=heads_of(patch[0], options),
        hidden=shapes[f"{prefix}blocks.0.mlp.fc1.weight"][0],
        patch=patch[2],
        channels=patch[1],
        places=shapes[f"{prefix}{FRONT}fixed_positional_encoder.positions"][1],
        classes=shapes.get("head.weight", (0,))[0],
        pooled_norm="fc_norm.weight" in shapes,
    )


class Data2Vec(Format):
    """What the two families share: layers with the norm after the sum, a norm before the first, a class token, fixed positions."""

    layout = "fairseq"
    modality: ClassVar[str]
    pool: ClassVar[str]
    """Of the published classifiers."""

    @abstractmethod
    def is_mine(self, channels: int) -> bool:
        """Return whether patches of so many channels are of this family."""

    @abstractmethod
    def embed(self, sizes: Sizes, checkpoint: Checkpoint, options: ImportOptions) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the settings of the embedding, and those of the transforms."""

    @abstractmethod
    def early_layers(self, depth: int) -> int:
        """Return how many layers are called the modality's own in the published model of that depth."""

    @abstractmethod
    def projection(self, sizes: Sizes, theirs: str) -> list[Entry]:
        """Return the entries of the projection of patches."""

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The front of fairseq's multimodal data2vec, with the family's number of channels."""
        patch = shapes.get(PROJECTION) or shapes.get("model." + PROJECTION)
        return patch is not None and len(patch) == 4 and self.is_mine(patch[1])

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the setting ``pool`` is "class" or "mean": what a classifier reads. Others: see ``embed``.

        Raises:
            ValueError: the setting has another value.
        """
        pool = options.settings.get("pool", self.pool)
        if pool not in POOLS:
            raise ValueError(f"pool must be one of {list(POOLS)}, got {pool!r}.")
        prefix = "" if PROJECTION in checkpoint.shapes else "model."
        sizes = sizes_in(checkpoint.shapes, prefix, options)
        embed, transforms = self.embed(sizes, checkpoint, options)
        heads = {}
        if sizes.classes:
            norm = layers.norm(EPS) if sizes.pooled_norm else None
            heads["classes"] = part("multimodal.heads.ClassificationHead", num_classes=sizes.classes, pool=pool, norm=norm)
        encoder = layers.encoder(
            sizes.dim,
            sizes.early + sizes.late,
            sizes.heads,
            block=part(layers.NN + "PostNormBlock"),
            mlp=layers.mlp(sizes.hidden),
            norm=layers.norm(EPS),
            norm_at="input",
            class_token=True,
        )
        model = PretrainedModel(ModelSettings(encoder, {self.modality: embed}, heads, transforms))
        ignored = {f"{prefix}{FRONT}decoder.*": DECODER, f"{prefix}_ema*": TEACHER, f"{prefix}shared_decoder.*": DECODER}
        return [Part(model, KeyMap(self.entries(sizes, prefix), ignored, vision.without_mask_token(model, self.modality)))]

    def entries(self, sizes: Sizes, prefix: str) -> list[Entry]:
        """Return where the tensors are."""
        front = prefix + FRONT
        entries = [
            *self.projection(sizes, f"{front}local_encoder.proj"),
            vision.stacked_tokens("encoder.special.tokens", [f"{front}extra_tokens"], [1]),
            vision.positions(f"{front}fixed_positional_encoder.positions", 0, f"embeds.{self.modality}"),
            *pair("encoder.input_norm", f"{front}context_encoder.norm"),
            *layers.fused_layers(sizes.early, "encoder.blocks.{}", f"{front}context_encoder.blocks.{{}}"),
        ]
        for i in range(sizes.late):
            entries += layers.fused_layers(1, f"encoder.blocks.{sizes.early + i}", f"{prefix}blocks.{i}")
        if sizes.classes:
            entries += (pair("heads.classes.norm", "fc_norm") if sizes.pooled_norm else []) + pair("heads.classes.proj", "head")
        return entries

    def write(self, model: nn.Module) -> Written:
        """Write the names of fairseq; which layers are called the modality's own is as published, and changes nothing else."""
        assert isinstance(model, PretrainedModel)
        sizes = self.sizes_of(model)
        return Written(KeyMap(self.entries(sizes, "model." if sizes.classes else "")).to_theirs(model.state_dict()))

    def sizes_of(self, model: PretrainedModel) -> Sizes:
        """Return the sizes of a model of ours."""
        encoder, embed = model.settings.encoder["init_args"], model.settings.embeds[self.modality]["init_args"]
        head = model.settings.heads.get("classes", {"init_args": {}})["init_args"]
        early = self.early_layers(encoder["depth"])
        rows, columns = embed["position"]["init_args"]["size"]
        return Sizes(
            dim=encoder["dim"],
            early=early,
            late=encoder["depth"] - early,
            heads=encoder["num_heads"],
            hidden=encoder["mlp"]["init_args"]["hidden_dim"],
            patch=embed["patch_size"],
            channels=embed.get("channels", 1),
            places=rows * columns,
            classes=head.get("num_classes", 0),
            pooled_norm=head.get("norm") is not None,
        )


class Data2VecImages(Data2Vec):
    """The published encoders of images."""

    family, modality, pool = "data2vec2", "image", "mean"
    licence = "CC-BY-NC 4.0: non-commercial use only (weights of images; https://github.com/facebookresearch/fairseq)"
    source = "https://github.com/facebookresearch/fairseq/tree/main/examples/data2vec"

    def is_mine(self, channels: int) -> bool:
        """Return whether these are images in colour."""
        return channels != 1

    def early_layers(self, depth: int) -> int:
        """Return 2 for the base model, and 0 for the others."""
        return 2 if depth == 12 else 0

    def embed(self, sizes: Sizes, checkpoint: Checkpoint, options: ImportOptions) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the settings; ``statistics`` is "imagenet" or "half", and ``grid`` names rows and columns where images are not square."""
        vision.check_settings(options, "pool", "statistics", "grid")
        statistics = vision.statistics_of(checkpoint, options, "imagenet", sizes.channels)
        grid = vision.grid_of(sizes.places, options)
        embed = vision.image_embed(sizes.patch, sizes.channels, statistics, vision.learned_position(grid, trainable=False))
        return embed, vision.image_transforms(grid, sizes.patch, sizes.channels)

    def projection(self, sizes: Sizes, theirs: str) -> list[Entry]:
        """Return the entries of the projection of patches."""
        return layers.patch_projection("embeds.image.proj", theirs, (sizes.dim, sizes.channels, sizes.patch, sizes.patch))


class Eat(Data2Vec):
    """The published encoders of spectrograms."""

    family, modality, pool = "eat", "audio", "class"
    licence, source = "MIT (https://github.com/cwx-worst-one/EAT)", "https://github.com/cwx-worst-one/EAT"

    def is_mine(self, channels: int) -> bool:
        """Return whether these are spectrograms."""
        return channels == 1

    def early_layers(self, depth: int) -> int:
        """Return 0."""
        return 0

    def embed(self, sizes: Sizes, checkpoint: Checkpoint, options: ImportOptions) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the settings; ``statistics`` is "audioset", "esc50" or "speechcommands", and ``bins`` of a spectrogram, else 128.

        Raises:
            ValueError: the positions are no grid of that many bins.
        """
        vision.check_settings(options, "pool", "statistics", "bins")
        bands = sound.integer_of(options, "bins", BINS) // sizes.patch
        if not bands or sizes.places % bands:
            raise ValueError(f"{sizes.places} positions are no grid of {bands} bands: set bins.")
        grid = (sizes.places // bands, bands)
        position = vision.learned_position(grid, trainable=False)
        embed = sound.spectrogram_embed(sizes.patch, sound.statistics_of(checkpoint, options), position=position)
        return embed, {"audio": sound.spectrogram_transform(grid[0] * sizes.patch, bands * sizes.patch)}

    def projection(self, sizes: Sizes, theirs: str) -> list[Entry]:
        """Return the entries of the projection of patches."""
        weight = sound.patch_weight("embeds.audio.proj.weight", f"{theirs}.weight", (sizes.dim, 1, sizes.patch, sizes.patch))
        return [weight, same("embeds.audio.proj.bias", f"{theirs}.bias")]


FORMATS = (Data2VecImages(), Eat())
