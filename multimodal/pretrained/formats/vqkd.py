"""VQ-KD, the tokenizer of BEiT v2 (https://arxiv.org/abs/2208.06366).

Source: microsoft/unilm ``beit2/modeling_vqkd.py``, ``beit2/norm_ema_quantizer.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers, heads_of
from multimodal.pretrained.formats import layers, vision
from multimodal.pretrained.keymap import Entry, KeyMap, pair, same
from multimodal.pretrained.settings import part
from multimodal.recorded import build, path_of

TOKENIZER = "multimodal.tokenizers.image.VqKdTokenizer"
TEACHER = "the teacher, or a part of the loss, that the tokenizer was trained with"
STARTED = "a codebook that was not trained is refused"
STATISTICS = "statistics of the codebook's training, that are written once and not used"


class UnilmVqKd(Format):
    """The names of unilm, with or without the decoder."""

    family, layout = "vqkd", "unilm"
    licence, source = "MIT (https://github.com/microsoft/unilm)", "https://github.com/microsoft/unilm/tree/master/beit2"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """A codebook, and layers from an encoder of images to codes."""
        return {"quantize.embedding.weight", "encode_task_layer.0.weight", "encoder.patch_embed.proj.weight"} <= shapes.keys()

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; there are no settings: images are scaled to [-1, 1].

        Raises:
            ValueError: the codebook has not been trained, or the sizes contradict each other.
        """
        vision.check_settings(options)
        shapes, started = checkpoint.shapes, checkpoint.tensors.get("quantize.embedding.initted")
        if started is not None and not bool(started.all()):
            raise ValueError("quantize.embedding.initted is 0: this codebook has not been trained.")
        settings = settings_of(shapes, options)
        tokenizer = build(part(TOKENIZER, **settings))
        tokenizer.quantizer.initialized.fill_(True)
        return [Part(tokenizer, keymap(settings))]

    def holds(self, model: nn.Module) -> bool:
        """Return whether the model is this tokenizer, with a codebook."""
        named = path_of(type(model)), path_of(type(getattr(model, "quantizer", None)))
        return named == ("multimodal.tokenizers.image.vqkd.VqKdTokenizer", "multimodal.tokenizers.quantizers.codebook.Codebook")

    def write(self, model: nn.Module) -> Written:
        """Write the names of unilm, with the statistics as they are before training goes on."""
        state, settings = model.state_dict(), model.config
        assert isinstance(settings, Mapping)
        codes, started = state["quantizer.codes"], state["quantizer.initialized"]
        beside = {"cluster_size": torch.zeros(len(codes)), "embed_avg": codes.clone(), "initted": started.float().view(1)}
        return Written({**keymap(settings).to_theirs(state), **{f"quantize.embedding.{name}": x for name, x in beside.items()}})


def settings_of(shapes: Shapes, options: ImportOptions) -> dict[str, Any]:
    """Return how to build the tokenizer."""
    patch, codes = shapes["encoder.patch_embed.proj.weight"], shapes["quantize.embedding.weight"]
    settings = {
        "num_codes": codes[0],
        "code_dim": codes[1],
        "dim": patch[0],
        "depth": count_layers(shapes, r"encoder\.blocks\.(\d+)\."),
        "num_heads": heads_of(patch[0], options),
        "hidden_dim": shapes["encoder.blocks.0.mlp.fc1.weight"][0],
        "patch_size": patch[2],
        "channels": patch[1],
        "grid": list(vision.grid_of(shapes["encoder.pos_embed"][1] - 1, options)),
        "teacher_dim": 0,
    }
    if "decoder.patch_embed.proj.weight" not in shapes:
        return settings
    dim = shapes["decoder.patch_embed.proj.weight"][0]
    decoder = {
        "decoder_dim": dim,
        "decoder_depth": count_layers(shapes, r"decoder\.blocks\.(\d+)\."),
        "decoder_heads": heads_of(dim, options),
        "decoder_hidden_dim": shapes["decoder.blocks.0.mlp.fc1.weight"][0],
        "teacher_dim": shapes["decode_task_layer.2.weight"][0],
    }
    return {**settings, **decoder}


def keymap(settings: Mapping[str, Any]) -> KeyMap:
    """Return where the tensors are."""
    patch = (settings["dim"], settings["channels"], settings["patch_size"], settings["patch_size"])
    entries = [*layers.patch_projection("embed.proj", "encoder.patch_embed.proj", patch), *_trunk("encoder", settings["depth"], "embed")]
    entries += [*pair("to_code.0", "encode_task_layer.0"), *pair("to_code.2", "encode_task_layer.2")]
    entries += [same("quantizer.codes", "quantize.embedding.weight"), same("quantizer.usage", "quantize.cluster_size")]
    if settings["teacher_dim"]:
        one = (settings["decoder_dim"], settings["code_dim"], 1, 1)
        entries += layers.patch_projection("from_code", "decoder.patch_embed.proj", one)
        entries += _trunk("decoder", settings["decoder_depth"], "")
        entries += [*pair("to_feature.0", "decode_task_layer.0"), *pair("to_feature.2", "decode_task_layer.2")]
    ignored = dict.fromkeys(("teacher*", "scaling*", "loss*"), TEACHER)
    ignored |= dict.fromkeys((f"quantize.embedding.{x}" for x in ("cluster_size", "embed_avg", "initted")), STATISTICS)
    return KeyMap(entries, ignored, {"quantizer.initialized": STARTED})


def _trunk(name: str, depth: int, embed: str) -> list[Entry]:
    """Return the entries of an encoder or a decoder, which have the same parts."""
    places = Entry(
        (f"{name}.special.positions", f"{embed}.position.table".removeprefix(".")),
        (f"{name}.pos_embed",),
        lambda x: [x[0][0, :1], x[0][0, 1:]],
        lambda x: [torch.cat(x)[None]],
    )
    entries = layers.fused_layers(depth, f"{name}.blocks.{{}}", f"{name}.blocks.{{}}", "query_value")
    return [
        *entries,
        vision.stacked_tokens(f"{name}.special.tokens", [f"{name}.cls_token"], [1]),
        places,
        *pair(f"{name}.norm", f"{name}.fc_norm"),
    ]


FORMATS = (UnilmVqKd(),)
