"""Frozen vision models whose features of patches are learned from: those of timm and transformers, and our own.

Letters in shapes: b images, c channels, m tokens of an image, n patches of all images, d width.
"""

from __future__ import annotations

import inspect
import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.protocols import Teacher

PREPROCESSOR_NAME = "preprocessor_config.json"
SAFELY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is downloaded, and no code of a folder is run: without the second, transformers asks the user whether to."""
UNUSED = re.compile(r"(^|\.)(pooler\.dense|head)\.|^(text_|logit_)|(^|\.)mask_token$")
"""Weights that features of patches do not depend on: what pools them, what reads texts, and what stands for hidden patches."""
SHOWN = 5


class Normalize(nn.Module):
    """Scale pixels of 0..255 by the statistics that a model was trained with.

    Args:
        mean: of each channel, of pixels scaled to [0, 1], subtracted.
        std: divides after that.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b c height width"]:
        """Return the pixels, normalised."""
        return (pixels / 255 - self.mean) / self.std


class ImageTeacher(Teacher):
    """A model that gives each patch of an image a feature.

    Images are uint8 of any size; those that do not have the model's side are resized to it (bicubic, antialiased). Grey images of a model
    of colours are shown in all three. The values are taken to lie in 0..255, whatever a batch holds.

    Args:
        model: frozen by who holds the teacher.
        dim: width of the features.
        size: (height, width) in pixels that the model sees; None: the images' own.
        patch_size: side of a patch, in pixels.
        channels: of the images that the model sees.
    """

    def __init__(self, model: nn.Module, dim: int, size: tuple[int, int] | None, patch_size: int, channels: int) -> None:
        super().__init__()
        self.model, self._dim, self.size, self.patch_size, self.channels = model.eval(), dim, size, patch_size, channels

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self._dim

    @torch.no_grad()
    def forward(self, values: UInt8[Tensor, "b c height width"], lengths: Tensor | None = None) -> Float[Tensor, "n d"]:
        """Return the features of the patches, row by row, image after image, in float32.

        Raises:
            ValueError: the model gives fewer tokens than there are patches, or cannot read the images.
        """
        pixels = self._resized(values.float())
        pixels = pixels.expand(-1, self.channels, -1, -1) if pixels.shape[1] == 1 else pixels
        if pixels.shape[1] != self.channels:
            raise ValueError(f"the teacher reads images of {self.channels} channels, got {pixels.shape[1]}.")
        tokens = self.tokens(pixels)
        patches = (pixels.shape[2] // self.patch_size) * (pixels.shape[3] // self.patch_size)
        if tokens.shape[1] < patches:
            raise ValueError(f"the teacher gives {tokens.shape[1]} tokens for {patches} patches: it has no feature of each.")
        return tokens[:, tokens.shape[1] - patches :].flatten(0, 1).float()  # class and register tokens come first

    @abstractmethod
    def tokens(self, pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b m d"]:
        """Return the tokens of images of 0..255; those of the patches come last, row by row."""

    def _resized(self, pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b c rows columns"]:
        if self.size is None or tuple(pixels.shape[2:]) == self.size:
            return pixels
        return F.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp(0, 255)


class TimmTeacher(ImageTeacher):
    """A vision transformer of timm (ViT, DeiT, BEiT, EVA, DINOv2, the image towers of CLIP): patches after the last norm.

    Args:
        name: of the architecture, such as ``vit_base_patch16_clip_224.openai``; it says the mean and deviation of the pixels.
        checkpoint: path of a weight file with timm's names (``.safetensors`` or ``.pth``), as timm's own are.
        pretrained: download timm's weights for ``name`` instead.
        size: side of the images that the model sees, in pixels; its positions are resampled. None: that of the architecture.

    Raises:
        ValueError: timm has no such model, it gives patches no features, or there are no weights or others than the model's.
    """

    def __init__(self, name: str, checkpoint: str | None = None, pretrained: bool = False, size: int | None = None) -> None:
        import timm

        if (checkpoint is None) != pretrained:
            raise ValueError(
                f"{name} needs weights: checkpoint must be the path of a file, or pretrained true to download timm's; one of them."
            )
        try:
            model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
        except RuntimeError as error:
            raise ValueError(f"timm has no model {name!r}: {error}") from error
        if not hasattr(model, "patch_embed") or not hasattr(model, "num_prefix_tokens"):
            raise ValueError(f"{name} is no vision transformer: a {type(model).__name__} has no features of patches.")
        if checkpoint is not None:
            _load(model, checkpoint)
        if size is not None:
            model.set_input_size(img_size=(size, size))
        patch, seen = model.patch_embed.patch_size, model.patch_embed.img_size
        super().__init__(model, model.num_features, tuple(seen), patch[0], len(model.pretrained_cfg["mean"]))
        self.normalize = Normalize(model.pretrained_cfg["mean"], model.pretrained_cfg["std"])

    def tokens(self, pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b m d"]:
        """Return the tokens after the last norm, which models that pool the mean of the tokens have behind it."""
        x: Tensor = self.model.forward_features(self.normalize(pixels))
        return self.model.fc_norm(x) if isinstance(self.model.norm, nn.Identity) else x


def _load(model: nn.Module, path: str) -> None:
    """Load a file of timm's names; its classifier is not needed."""
    from multimodal.pretrained.checkpoint import read_checkpoint

    tensors = {name: x for name, x in read_checkpoint(path).tensors.items() if not name.startswith(("head.", "head_dist."))}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of this model: {' '.join(str(error).split())}") from error


class TransformersTeacher(ImageTeacher):
    """A vision model of transformers (ViT, BEiT, DINOv2, the image tower of CLIP, ...): patches after the last norm.

    Args:
        folder: that ``save_pretrained`` of transformers wrote, on this machine.
        size: side of the images that the model sees, in pixels; its positions are resampled. None: that of the model.
        projection: multiply by the visual projection too, into the space shared with texts (CLIP; the teacher of BEiT v2).
        mean: of each channel, of pixels scaled to [0, 1]. None: ``preprocessor_config.json`` in the folder says it.
        std: as ``mean``.

    Raises:
        ValueError: the folder is missing or holds no such model, lacks weights that the features depend on, needs code of its own to be
            run, or says no mean and deviation of the pixels.
    """

    def __init__(
        self,
        folder: str,
        size: int | None = None,
        projection: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        model: Any = _transformers_model(folder, projection)
        normalize = Normalize(_statistic(folder, "mean", mean), _statistic(folder, "std", std))
        sides = model.config.image_size if size is None else size
        dim = model.config.projection_dim if projection else model.config.hidden_size
        height, width = (sides, sides) if isinstance(sides, int) else sides
        super().__init__(model, dim, (height, width), model.config.patch_size, model.config.num_channels)
        self.normalize = normalize
        self.resample = {"interpolate_pos_encoding": True} if size not in (None, model.config.image_size) else {}
        if self.resample and "interpolate_pos_encoding" not in inspect.signature(model.forward).parameters:
            self.resample = {}  # DINOv2 and others do so without being told

    def tokens(self, pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b m d"]:
        """Return the tokens after the last norm, which CLIP and BEiT with mean pooling leave to what comes behind."""
        inner = getattr(self.model, "vision_model", self.model)
        x: Tensor = inner(self.normalize(pixels), **self.resample).last_hidden_state
        if type(inner).__name__.startswith("CLIP"):
            x = inner.post_layernorm(x)
        elif isinstance(getattr(inner, "layernorm", None), nn.Identity):
            x = inner.pooler.layernorm(x)
        return self.model.visual_projection(x) if hasattr(self.model, "visual_projection") else x


def _transformers_model(folder: str, projection: bool) -> nn.Module:
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder} holds no model of transformers: config.json not found. Nothing is downloaded: fetch the folder.")
    from transformers import AutoConfig, AutoModel, CLIPVisionModel, CLIPVisionModelWithProjection

    with _readable(folder):
        family = AutoConfig.from_pretrained(folder, **SAFELY).model_type
    if projection and not family.startswith("clip"):
        raise ValueError(f"projection: a {family!r} has no visual projection, CLIP has.")
    kind: Any = (CLIPVisionModelWithProjection if projection else CLIPVisionModel) if family.startswith("clip") else AutoModel
    with _readable(folder):
        model, loading = kind.from_pretrained(folder, **SAFELY, output_loading_info=True, ignore_mismatched_sizes=True)
    _check_loaded(folder, model, loading)
    return model  # type: ignore[no-any-return]


def _check_loaded(folder: str, model: nn.Module, loading: Mapping[str, Any]) -> None:
    """Refuse a model with layers that transformers has drawn at random, as the file does not have them.

    Raises:
        ValueError: features of patches depend on such a layer.
    """
    problems = {name: "missing" for name in sorted(loading["missing_keys"])}
    problems |= {name: f"{tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in sorted(loading["mismatched_keys"])}
    if bad := [f"{name} ({problem})" for name, problem in problems.items() if not UNUSED.search(name)]:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise ValueError(f"{folder} does not hold the weights of a {type(model).__name__}: {', '.join(bad[:SHOWN])}{more}.")


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    """Tell what transformers cannot read in one line; it refuses with a ValueError what it would need code of the folder for."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if "custom code" in str(error):
            raise ValueError(
                f"{folder} brings code of its own (auto_map in config.json), which is never run: a teacher must be of a kind that "
                "transformers itself has."
            ) from error
        raise ValueError(f"{folder} holds no model that transformers can read: {str(error).splitlines()[0]}") from error


def _statistic(folder: str, name: str, given: Sequence[float] | None) -> Sequence[float]:
    """Return a statistic of the pixels, as it is given or as the folder says."""
    path = Path(folder) / PREPROCESSOR_NAME
    if given is not None:
        return given
    said = json.loads(path.read_text()).get(f"image_{name}") if path.is_file() else None
    if not isinstance(said, list):
        raise ValueError(f"{path} does not say the image_{name} of the pixels: copy the file beside the model, or give {name}.")
    return said


class ModelTeacher(ImageTeacher):
    """An encoder of our own, trained, saved or imported: the features of its patches.

    Args:
        folder: that ``save_pretrained`` or ``multimodal import`` wrote.
        modality: whose embedding reads the images; None: the model's only one.
        layer: whose output, from 0 or backwards from -1, without the encoder's last norm; None: the last one with it.
        size: side of the images that the model sees, in pixels; its positions are resampled. None: the images' own.

    Raises:
        ValueError: the folder holds no such model, or the modality is not cut into square patches.
    """

    def __init__(self, folder: str, modality: str | None = None, layer: int | None = None, size: int | None = None) -> None:
        from multimodal.pretrained import PretrainedModel, from_pretrained
        from multimodal.pretrained.resolution import at_image_size

        model = from_pretrained(folder)
        if not isinstance(model, PretrainedModel):
            raise ValueError(f"{folder} holds a {type(model).__name__}, which has no features of patches.")
        name = model.only_modality(modality)
        embed: Any = model.embeds[name]
        if not isinstance(getattr(embed, "patch_size", None), int):
            raise ValueError(f"the items of {name!r} in {folder} are not cut into square patches.")
        model = model if size is None else at_image_size(model, size, name)
        sides = None if size is None else (size, size)
        super().__init__(model, model.encoder.dim, sides, embed.patch_size, embed.init_args["channels"])
        self.modality, self.layer = name, None if layer is None else model.layer_indices([layer])[0]

    def tokens(self, pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b m d"]:
        """Return the tokens after the encoder, or after one of its layers; the model normalises values of 0 to 255 itself."""
        if self.layer is None:
            return self.model.forward_features(pixels, modality=self.modality)
        (x,) = self.model.forward_intermediates(
            pixels, indices=[self.layer], output_fmt="NLC", intermediates_only=True, modality=self.modality
        )
        return x
