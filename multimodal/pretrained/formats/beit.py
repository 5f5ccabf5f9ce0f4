"""BEiT and BEiT v2: masked-image models and classifiers (https://arxiv.org/abs/2106.08254, https://arxiv.org/abs/2208.06366).

Sources: microsoft/unilm ``beit/modeling_pretrain.py``, ``beit/modeling_finetune.py``, ``beit2/modeling_pretrain.py``; timm
``models/beit.py``; transformers ``models/beit``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.nn import RelativeBias2d
from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.formats.beit_sizes import (
    BEFORE_CLASSES,
    REBUILT,
    Sizes,
    grid_from,
    head_entries,
    image_entries,
    settings_of,
    sizes_of,
)
from multimodal.pretrained.formats.renamed import Renamed
from multimodal.pretrained.keymap import KeyMap, same
from multimodal.pretrained.model import PretrainedModel

ONLY_TRAINED = "a head for hidden patches, which timm's BEiT does not have (unilm's and transformers' do)"
LATE = "layers of the pretraining head (class token and early patches) that no later use needs"
SEGMENTATION = "a head for segmentation"
SHARED, OWN = "rel_pos_bias.relative_position_bias_table", "attn.relative_position_bias_table"
TABLE = "relative_position_bias.relative_position_bias_table"


class UnilmBeit(Format):
    """The names of unilm."""

    family, layout = "beit", "unilm"
    licence, source = "MIT (https://github.com/microsoft/unilm)", "https://github.com/microsoft/unilm/tree/master/beit"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Biases of query and value, a class token, and a relative bias or positions; and nothing of timm beside."""
        return named_as_unilm(shapes) and not _is_timm(config)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read.

        Settings: ``statistics`` is "half" (ImageNet-22k, BEiT v1; the default) or "imagenet" (BEiT v2; BEiT v1 on ImageNet-1k; the default
        where there are layers of BEiT v2's head): what the pixels were normalised with, which the tensors do not tell. ``grid`` is
        ROWSxCOLUMNS of patches, for images that are not square.
        """
        vision.check_settings(options, "statistics", "grid")
        sizes = _sizes_as_unilm(checkpoint, options)
        default = "imagenet" if "cls_pt_layers.0.norm1.weight" in checkpoint.tensors else "half"
        statistics = vision.statistics_of(checkpoint, options, default, sizes.channels)
        model = PretrainedModel(settings_of(sizes, statistics, vision.labels_of(checkpoint.config, sizes.classes)))
        kept = {} if sizes.mask_token else vision.without_mask_token(model)
        return [Part(model, self.keymap(sizes) + KeyMap([], {}, kept))]

    def keymap(self, sizes: Sizes) -> KeyMap:
        """Return where the tensors are."""
        entries = layers.fused_layers(sizes.depth, "encoder.blocks.{}", "blocks.{}", "query_value", sizes.scales)
        entries += image_entries(sizes, "patch_embed.proj", "cls_token", "mask_token", "pos_embed")
        if sizes.bias == "shared":
            entries.append(same("encoder.bias.table", SHARED))
        if sizes.bias == "own":
            entries += [same(f"encoder.blocks.{i}.attn.position_bias.table", f"blocks.{i}.{OWN}") for i in range(sizes.depth)]
        entries += head_entries(sizes, "norm", "fc_norm", "lm_head", "head")
        return KeyMap(entries, {"*relative_position_index": REBUILT, "cls_pt_*": LATE, "fc_norm.*": BEFORE_CLASSES})

    def write(self, model: nn.Module) -> Written:
        """Write the names of unilm, its index buffers included."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        index = {"shared": [SHARED], "own": [f"blocks.{i}.{OWN}" for i in range(sizes.depth)], "none": []}[sizes.bias]
        buffers = {name.replace("bias_table", "index"): relative_position_index(sizes.grid) for name in index}
        return Written({**self.keymap(sizes).to_theirs(model.state_dict()), **buffers})

    def options_for(self, model: PretrainedModel) -> ImportOptions:
        """Return what the tensors do not tell; there is no config."""
        return vision.options_for(model, sizes_of(model).grid)


class TimmBeit(UnilmBeit):
    """The names of timm: those of unilm, beside timm's config; classifiers and bare encoders."""

    layout = "timm"
    licence, source = "Apache-2.0 (timm's copies of MIT weights)", "https://github.com/huggingface/pytorch-image-models"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The names of unilm, and timm's config."""
        return named_as_unilm(shapes) and _is_timm(config)

    def write(self, model: nn.Module) -> Written:
        """Write names and config of timm; a head that predicts ids of hidden patches, and the mask token, are left out."""
        assert isinstance(model, PretrainedModel)
        sizes = replace(sizes_of(model), mask_token=False, vocab=0)
        state = model.state_dict()
        left_out = {name: ONLY_TRAINED for name in state if name.startswith("heads.tokens.")}
        return Written(self.keymap(sizes).to_theirs(state), timm_config(model, sizes), left_out=left_out)

    def options_for(self, model: PretrainedModel) -> ImportOptions:
        """Return nothing but the heads: timm's config tells the rest."""
        return ImportOptions(num_heads=model.encoder.num_heads)


class TransformersBeit(Format):
    """The names in the files of transformers."""

    family, layout = "beit", "transformers"
    licence, source = "Apache-2.0 (as on the hub)", "https://huggingface.co/docs/transformers/model_doc/beit"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The prefix of BEiT's classes; or layers with layer scale and query bias but no key bias, without prefix."""
        if config.get("model_type", "beit") != "beit":
            return False
        layer = "encoder.layer.0."
        bare = f"{layer}lambda_1" in shapes and f"{layer}attention.attention.key.bias" not in shapes and "embeddings.cls_token" in shapes
        return bare or ("beit.embeddings.cls_token" in shapes and f"beit.{layer}layernorm_before.weight" in shapes)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; the settings ``statistics`` and ``grid`` are as in the layout of unilm."""
        vision.check_settings(options, "statistics", "grid")
        prefix = "beit." if "beit.embeddings.cls_token" in checkpoint.tensors else ""
        sizes = _sizes_as_transformers(checkpoint, options, prefix)
        statistics = vision.statistics_of(checkpoint, options, "half", sizes.channels)
        model = PretrainedModel(settings_of(sizes, statistics, vision.labels_of(checkpoint.config, sizes.classes)))
        kept = {} if sizes.mask_token else vision.without_mask_token(model)
        return [Part(model, self.keymap(sizes, prefix) + KeyMap([], {}, kept))]

    def keymap(self, sizes: Sizes, prefix: str) -> KeyMap:
        """Return where the tensors are."""
        layer, e = prefix + "encoder.layer.{}", prefix + "embeddings."
        entries = layers.separate_layers(sizes.depth, "encoder.blocks.{}", layer, vision.TRANSFORMERS_LAYER, "query_value")
        entries += vision.scales("encoder.blocks.{}", layer, sizes.depth, ("lambda_1", "lambda_2")) if sizes.scales else []
        names = [e + name for name in ("patch_embeddings.projection", "cls_token", "mask_token", "position_embeddings")]
        entries += image_entries(sizes, *names)
        if sizes.bias == "shared":
            entries.append(same("encoder.bias.table", f"{prefix}encoder.{TABLE}"))
        if sizes.bias == "own":
            own = [f"{layer.format(i)}.attention.attention.{TABLE}" for i in range(sizes.depth)]
            entries += [same(f"encoder.blocks.{i}.attn.position_bias.table", name) for i, name in enumerate(own)]
        norm = "layernorm" if sizes.vocab else prefix + "layernorm"
        entries += head_entries(sizes, norm, prefix + "pooler.layernorm", "lm_head", "classifier")
        ignored = {"*relative_position_index": REBUILT, f"{prefix}pooler.layernorm.*": BEFORE_CLASSES}
        return KeyMap(entries, {**ignored, **dict.fromkeys(("decode_head.*", "auxiliary_head.*", "fpn*"), SEGMENTATION)})

    def write(self, model: nn.Module) -> Written:
        """Write names and config of transformers."""
        assert isinstance(model, PretrainedModel)
        sizes = sizes_of(model)
        bare = not (sizes.vocab or sizes.classes)
        tensors = self.keymap(sizes, "" if bare else "beit.").to_theirs(model.state_dict())
        config = {**_transformers_config(sizes), **vision.id2label(model, sizes.classes)}
        return Written(tensors, config, vision.preprocessor_of(model, sizes.grid, sizes.patch))


def named_as_unilm(shapes: Shapes) -> bool:
    """Return whether tensors have the names of a BEiT in unilm and timm."""
    rooted = {"patch_embed.proj.weight", "cls_token", "blocks.0.attn.q_bias", "blocks.0.attn.v_bias"} <= shapes.keys()
    placed = any(name in shapes for name in (SHARED, f"blocks.0.{OWN}", "pos_embed"))
    return rooted and placed and len(shapes["patch_embed.proj.weight"]) == 4 and "blocks.0.mlp.fc1.weight" in shapes


def _is_timm(config: Mapping[str, Any]) -> bool:
    return "architecture" in config or "pretrained_cfg" in config


def relative_position_index(grid: tuple[int, int]) -> Tensor:
    """Return the rows of the table for each pair of places, as unilm stores them, ``(1 + places, 1 + places)`` int64."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, 2)
    return RelativeBias2d(1, grid).index(nn.functional.pad(places, (0, 0, 1, 0), value=-1)[None])[0]


def _sizes_as_unilm(checkpoint: Checkpoint, options: ImportOptions) -> Sizes:
    shapes = checkpoint.shapes
    own, patch, arguments = f"blocks.0.{OWN}", shapes["patch_embed.proj.weight"], checkpoint.config.get("model_args") or {}
    table, places = shapes.get(SHARED) or shapes.get(own), shapes.get("pos_embed")
    return Sizes(
        dim=patch[0],
        depth=count_layers(shapes, r"blocks\.(\d+)\."),
        heads=table[1] if table else heads_of(patch[0], vision.with_heads(options, arguments.get("num_heads"))),
        hidden=shapes["blocks.0.mlp.fc1.weight"][0],
        patch=patch[2],
        channels=patch[1],
        grid=grid_from(table, places, options),
        bias="shared" if SHARED in shapes else "own" if own in shapes else "none",
        absolute=places is not None,
        scales="blocks.0.gamma_1" in shapes,
        eps=1e-6,
        vocab=shapes.get("lm_head.weight", (0,))[0],
        classes=shapes.get("head.weight", (0,))[0],
        pooled_norm="fc_norm.weight" in shapes and "head.weight" in shapes,
        last_norm="norm.weight" in shapes,
        mask_token="mask_token" in shapes,
    )


def _sizes_as_transformers(checkpoint: Checkpoint, options: ImportOptions, prefix: str) -> Sizes:
    shapes, config = checkpoint.shapes, checkpoint.config
    e, layer = prefix + "embeddings.", prefix + "encoder.layer.0."
    shared, own, patch = f"{prefix}encoder.{TABLE}", f"{layer}attention.attention.{TABLE}", shapes[e + "patch_embeddings.projection.weight"]
    table, places = shapes.get(shared) or shapes.get(own), shapes.get(e + "position_embeddings")
    vocab = shapes.get("lm_head.weight", (0,))[0]
    return Sizes(
        dim=patch[0],
        depth=count_layers(shapes, re.escape(prefix) + r"encoder\.layer\.(\d+)\."),
        heads=table[1] if table else heads_of(patch[0], vision.with_heads(options, config.get("num_attention_heads"))),
        hidden=shapes[layer + "intermediate.dense.weight"][0],
        patch=patch[2],
        channels=patch[1],
        grid=grid_from(table, places, options, config.get("image_size"), patch[2]),
        bias="shared" if shared in shapes else "own" if own in shapes else "none",
        absolute=places is not None,
        scales=layer + "lambda_1" in shapes,
        eps=float(config.get("layer_norm_eps", 1e-12)),
        vocab=vocab,
        classes=shapes.get("classifier.weight", (0,))[0],
        pooled_norm=f"{prefix}pooler.layernorm.weight" in shapes and "classifier.weight" in shapes,
        last_norm=("layernorm.weight" if vocab else f"{prefix}layernorm.weight") in shapes,
        mask_token=e + "mask_token" in shapes,
        act=vision.activation_of(config),
    )


def timm_config(model: PretrainedModel, sizes: Sizes) -> dict[str, Any]:
    """Return a ``config.json`` that ``timm.create_model("local-dir:...")`` reads."""
    mean, std = (list(values) for values in vision.statistics_in(model))
    pool = "avg" if sizes.pooled_norm or not (sizes.classes or sizes.last_norm) else "token"
    size = [sizes.grid[0] * sizes.patch, sizes.grid[1] * sizes.patch]
    arguments = {
        "img_size": size,
        "patch_size": sizes.patch,
        "embed_dim": sizes.dim,
        "depth": sizes.depth,
        "num_heads": sizes.heads,
        "mlp_ratio": sizes.hidden / sizes.dim,
        "init_values": 0.1 if sizes.scales else 0.0,  # timm takes None for not said
        "use_abs_pos_emb": sizes.absolute,
        "use_rel_pos_bias": sizes.bias == "own",
        "use_shared_rel_pos_bias": sizes.bias == "shared",
    }
    facts = {"input_size": [sizes.channels, *size], "mean": mean, "std": std, "num_classes": sizes.classes}
    labels = {"label_names": list(model.settings.labels)} if model.settings.labels else {}
    return {
        "architecture": "beit_base_patch16_224",
        "num_classes": sizes.classes,
        "num_features": sizes.dim,
        "global_pool": pool,
        "model_args": {
            **arguments,
            "in_chans": sizes.channels,
            "global_pool": pool,
            "use_fc_norm": sizes.pooled_norm or not sizes.last_norm,
        },
        **labels,
        "pretrained_cfg": {**facts, "first_conv": "patch_embed.proj", "classifier": "head"},
    }


def _transformers_config(sizes: Sizes) -> dict[str, Any]:
    name = "BeitForMaskedImageModeling" if sizes.vocab else "BeitForImageClassification" if sizes.classes else "BeitModel"
    rows, columns = (side * sizes.patch for side in sizes.grid)
    return {
        "model_type": "beit",
        "architectures": [name],
        "hidden_size": sizes.dim,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
        "hidden_act": vision.hidden_act(sizes.act),
        "image_size": rows if rows == columns else [rows, columns],
        "patch_size": sizes.patch,
        "num_channels": sizes.channels,
        "layer_norm_eps": sizes.eps,
        "use_mask_token": sizes.mask_token,
        "use_absolute_position_embeddings": sizes.absolute,
        "use_shared_relative_position_bias": sizes.bias == "shared",
        "use_relative_position_bias": sizes.bias == "own",
        "use_mean_pooling": bool(sizes.vocab) or not sizes.last_norm,
        "layer_scale_init_value": 0.1 if sizes.scales else 0.0,
        **({"vocab_size": sizes.vocab} if sizes.vocab else {}),
    }


FORMATS = (UnilmBeit(), TimmBeit(), TransformersBeit(), Renamed(TransformersBeit()))
