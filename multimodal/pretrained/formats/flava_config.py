"""What ``config.json`` of transformers says of FLAVA's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal.pretrained.formats import vision
from multimodal.pretrained.model import PretrainedModel

CLASSES = {"image": "FlavaImageModel", "text": "FlavaTextModel", "multimodal": "FlavaMultimodalModel"}


def config_of(name: str, model: PretrainedModel) -> dict[str, Any]:
    """Return the config of the class of a tower."""
    encoder = model.settings.encoder["init_args"]
    config = {
        "model_type": f"flava_{name}_model",
        "architectures": [CLASSES[name]],
        "hidden_size": encoder["dim"],
        "num_hidden_layers": encoder["depth"],
        "num_attention_heads": encoder["num_heads"],
        "intermediate_size": encoder["mlp"]["init_args"]["hidden_dim"],
        "hidden_act": vision.hidden_act(encoder["mlp"]["init_args"]["act"]),
        "layer_norm_eps": encoder["norm"]["init_args"]["eps"],
        "qkv_bias": encoder["attention"]["init_args"]["bias"] == "all",
    }
    return config | {"image": image_config, "text": text_config, "multimodal": multimodal_config}[name](model)


def image_config(model: PretrainedModel) -> dict[str, Any]:
    """Return what is said of images alone."""
    embed = model.settings.embeds["image"]["init_args"]
    rows, columns = embed["position"]["init_args"]["size"]
    sides = [rows * embed["patch_size"], columns * embed["patch_size"]]
    config = {
        "image_size": sides[0] if sides[0] == sides[1] else sides,
        "patch_size": embed["patch_size"],
        "num_channels": embed["channels"],
    }
    return config | {"mask_token": True} | _vocab(model, "tokens")


def text_config(model: PretrainedModel) -> dict[str, Any]:
    """Return what is said of texts alone."""
    embed = model.settings.embeds["text"]["init_args"]
    length = embed["position"]["init_args"]["size"][0]
    return {"vocab_size": embed["vocab_size"], "max_position_embeddings": length, "type_vocab_size": embed["num_types"]}


def multimodal_config(model: PretrainedModel) -> dict[str, Any]:
    """Return what is said of the multimodal encoder alone."""
    return {"use_cls_token": model.encoder.special is not None}


def whole_config(parts: Mapping[str, PretrainedModel]) -> dict[str, Any]:
    """Return the config of the whole model; ``parts``: "image", "text" and "multimodal"."""
    towers = {name: config_of(name, model) for name, model in parts.items()}
    projection = parts["image"].settings.heads.get("projection")
    return {
        "model_type": "flava",
        "architectures": ["FlavaForPreTraining" if "tokens" in parts["image"].heads else "FlavaModel"],
        "hidden_size": towers["multimodal"]["hidden_size"],
        "layer_norm_eps": towers["multimodal"]["layer_norm_eps"],
        "init_codebook": False,
        **({"projection_dim": projection["init_args"]["num_classes"]} if projection else {}),
        **{f"{name}_config": config for name, config in towers.items()},
    }


def _vocab(model: PretrainedModel, head: str) -> dict[str, int]:
    return {"vocab_size": model.settings.heads[head]["init_args"]["vocab_sizes"][0]} if head in model.settings.heads else {}
