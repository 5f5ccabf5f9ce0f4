"""Saved models of images in timm.

After ``import multimodal.pretrained.timm_models``, ``timm.create_model("multimodal_model", folder=DIR)`` loads
one, as classifier or (``features_only=True``) as backbone.

Letters in shapes: b images, c channels, d width, k classes, m tokens with class and register tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from multimodal.heads import ClassificationHead, Pool
from multimodal.pretrained.folder import load, read_settings
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.resolution import at_image_size
from multimodal.pretrained.settings import ModelSettings


class SavedModel(PretrainedModel):
    """A saved model with timm's conventions: normalised images in, and timm's names around it.

    Args:
        folder: of the saved model.
        modality: whose images; None: the only modality.
        num_classes: of a new classifier; None: the saved one, or none where there is none; 0: none.
        global_pool: of a new classifier: "avg" or "token".
        in_chans: must be what the saved embedding reads; None: that.
        drop_rate: share of the pooled vector dropped in training, of a new classifier.
        img_size: side of the images, pixels, where it is not the saved one; the positions are resampled.

    Raises:
        ValueError: the folder holds no model of images, or an argument does not fit it.
    """

    def __init__(
        self,
        folder: str | Path,
        modality: str | None = None,
        num_classes: int | None = None,
        global_pool: str = "avg",
        in_chans: int | None = None,
        drop_rate: float = 0.0,
        img_size: int | None = None,
    ) -> None:
        saved = load(folder)
        saved = saved if img_size is None else at_image_size(saved, img_size, modality)
        super().__init__(saved.settings)
        self.load_state_dict(saved.state_dict())
        self.modality = self.only_modality(modality)
        embed: Any = self.embeds[self.modality]
        channels, size = embed.init_args["channels"], embed.patch_size
        if in_chans not in (None, channels):
            raise ValueError(f"in_chans must be {channels}, what the saved model reads, got {in_chans}.")
        embed.mean.zero_()  # timm's images are normalised before they come
        embed.std.fill_(1 / 255)
        depth, self.num_features = self.encoder.depth, self.encoder.dim
        self.embed_dim = self.head_hidden_size = self.num_features
        self.drop_rate, self.grad_checkpointing = drop_rate, False
        self.feature_info = [{"num_chs": self.num_features, "reduction": size, "module": f"encoder.blocks.{i}"} for i in range(depth)]
        self.num_classes = self.heads["classes"].num_classes if "classes" in self.heads else 0  # type: ignore[union-attr]
        if num_classes not in (None, self.num_classes):
            self.reset_classifier(num_classes, global_pool)

    def forward(self, x: Float[Tensor, "b c height width"]) -> Tensor:  # type: ignore[override]
        """Return the logits ``(b, k)``, or the tokens ``(b, m, d)`` of a model without classifier."""
        features = self.features(x, modality=self.modality)
        return self.logits(features) if self.num_classes else features.x

    def forward_head(self, x: Float[Tensor, "b m d"], pre_logits: bool = False) -> Tensor:  # type: ignore[override]
        """Return the logits, or what goes into the classifier."""
        if pre_logits or not self.num_classes:
            special = self.encoder.special.count if self.encoder.special is not None else 0
            return x[:, special:].mean(1) if self._pool() == "mean" else x[:, 0]
        return super().forward_head(x)

    def forward_intermediates(self, x: Tensor, indices: int | Sequence[int] | None = None, **options: Any) -> Any:  # type: ignore[override]
        """As ``PretrainedModel.forward_intermediates``; ``stop_early`` is accepted and has no effect on the result."""
        options.pop("stop_early", None)
        return super().forward_intermediates(x, indices=indices, modality=self.modality, **options)

    def prune_intermediate_layers(self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True) -> list[int]:
        """Remove what comes after the last of some layers, and return their numbers."""
        chosen = self.layer_indices(indices)
        self.encoder.blocks = self.encoder.blocks[: chosen[-1] + 1]
        self.encoder.depth = len(self.encoder.blocks)
        if prune_norm:
            self.encoder.norm = None
        if prune_head:
            self.reset_classifier(0)
        return chosen

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, or by none for 0 classes.

        Raises:
            ValueError: ``global_pool`` is neither "avg" nor "token".
        """
        if global_pool not in (None, "avg", "token"):
            raise ValueError(f"global_pool must be 'avg' or 'token', got {global_pool!r}.")
        pool: Pool = self._pool() if global_pool is None else "mean" if global_pool == "avg" else "class"
        self.num_classes = num_classes
        if "classes" in self.heads:
            del self.heads["classes"]
        if num_classes:
            norm = nn.LayerNorm if self.encoder.norm is None else None  # a post-norm, or a classifier's own norm, ends the encoder
            self.heads["classes"] = ClassificationHead(self.num_features, num_classes, pool, norm=norm, dropout=self.drop_rate)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.heads["classes"].proj if self.num_classes else nn.Identity()  # type: ignore[union-attr, return-value]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass."""
        self.grad_checkpointing = self.encoder.checkpoint_activations = enable

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that are not decayed (BEiT): class, register and mask tokens, positions."""
        return {
            name
            for name, _ in self.named_parameters()
            if name.startswith("encoder.special") or "mask_token" in name or ".position." in name
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that group parameters by layer."""
        return {"stem": r"^embeds|^encoder\.special", "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.norm", (99999,))]}

    def _pool(self) -> Pool:
        head = dict(self.heads.items()).get("classes")
        if not isinstance(head, ClassificationHead):
            return "mean"
        if head.how is None:
            raise ValueError(f"the classifier pools by a {type(head.pooling).__name__}, which timm has no name for: set global_pool.")
        return head.how


def timm_config(settings: ModelSettings, folder: str | Path) -> dict[str, Any]:
    """Return what timm's data loading wants to know of a saved model, its ``pretrained_cfg``."""
    name = next(iter(settings.embeds))
    embed = settings.embeds[name]["init_args"]
    channels, size = embed.get("channels", 3), settings.transforms.get(name, {}).get("init_args", {}).get("size", 224)
    mean, std = (tuple(embed.get(key, (0.5,))) * (channels if len(embed.get(key, (0.5,))) == 1 else 1) for key in ("mean", "std"))
    return {
        "architecture": "multimodal_model",
        "num_classes": settings.heads["classes"]["init_args"]["num_classes"] if "classes" in settings.heads else 0,
        "input_size": (channels, size, size),
        "mean": mean,
        "std": std,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "first_conv": f"embeds.{name}.proj",
        "classifier": "heads.classes.proj",
        "license": settings.origin.licence,
        "source": str(folder),
    }


@register_model
def multimodal_model(pretrained: bool = False, **options: Any) -> nn.Module:
    """Load a folder that ``save_pretrained`` or ``multimodal import`` wrote; its weights are always loaded.

    Raises:
        ValueError: no ``folder`` is given, or it holds no model of images.
    """
    if "folder" not in options:
        raise ValueError("multimodal_model needs the folder of a saved model: timm.create_model('multimodal_model', folder=DIR).")
    feature_cfg = {"feature_cls": "getter", "out_indices": options.pop("out_indices", 3)}
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # of weights that timm would fetch
        options.pop(name, None)
    config = timm_config(read_settings(options["folder"]), options["folder"])
    model: nn.Module = build_model_with_cfg(
        SavedModel, "multimodal_model", False, pretrained_cfg=config, feature_cfg=feature_cfg, **options
    )
    return model
