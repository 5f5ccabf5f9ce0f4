"""DALL-E's discrete VAE (https://arxiv.org/abs/2102.12092): the tokenizer of images of BEiT and FLAVA.

Sources: openai/DALL-E ``dall_e/encoder.py``, ``dall_e/decoder.py``; transformers ``models/flava`` (``FlavaImageCodebook``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written, count_layers
from multimodal.pretrained.formats.vision import check_settings
from multimodal.pretrained.keymap import KeyMap, same
from multimodal.pretrained.settings import part
from multimodal.recorded import build, path_of

TOKENIZER = "multimodal.tokenizers.image.DalleTokenizer"
NUM_GROUPS = 4
LICENCE = "modified MIT (openai/DALL-E; say that the model was used)"


class Names(NamedTuple):
    """What a layout calls the parts of a network.

    Args:
        block: of a block, with ``{}`` for the numbers of its group and of itself.
        path: between a block and its convolutions.
        weight: of a convolution.
        bias: of a convolution.
    """

    block: str
    path: str
    weight: str
    bias: str


OPENAI = Names("blocks.group_{}.block_{}.", "res_path.", "w", "b")
FLAVA = Names("blocks.group_{}.group.block_{}.", "res_path.path.", "weight", "bias")


def network_map(tokenizer: nn.Module, ours: str, theirs: str, names: Names) -> KeyMap:
    """Return where the tensors of an encoder or decoder are.

    Args:
        tokenizer: ours.
        ours: prefix of ours, "encoder." or "decoder.".
        theirs: prefix of theirs.
        names: of their layout.
    """
    own = [name for name in tokenizer.state_dict() if name.startswith(ours)]
    return KeyMap([same(name, theirs + their_name(name.removeprefix(ours), names)) for name in own])


def their_name(name: str, names: Names) -> str:
    """Return what a layout calls a tensor of a network of ours."""
    place, _, leaf = name.rpartition(".")
    if inner := re.match(r"group(\d+)_block(\d+)\.(?:shortcut|convs\.(\d+))$", place):
        group, block, conv = inner.groups()
        place = names.block.format(group, block) + ("id_path" if conv is None else f"{names.path}conv_{int(conv) + 1}")
    else:
        place = {"input": "blocks.input", "output": "blocks.output.conv"}[place]
    return f"{place}.{names.weight if leaf == 'weight' else names.bias}"


def blocks_per_group(prefix: str, names: Names, shapes: Shapes) -> int:
    """Return the number of blocks of the first group.

    Raises:
        ValueError: there are none.
    """
    start = prefix + names.block.format(1, "")[:-1]
    numbered = {
        f"{int(number) - 1}.": shape for name, shape in shapes.items() if (number := name.removeprefix(start).split(".")[0]).isdecimal()
    }
    return count_layers(numbered, r"(\d+)\.")


def tokenizer_part(shapes: Shapes, names: Names, encoder: str, decoder: str | None, name: str = "") -> Part:
    """Return the tokenizer in a checkpoint.

    Args:
        shapes: of the checkpoint.
        names: of its layout.
        encoder: prefix of the encoder's tensors.
        decoder: prefix of the decoder's tensors; None: there is none.
        name: of the part.
    """
    first, last = shapes[f"{encoder}blocks.input.{names.weight}"], shapes[f"{encoder}blocks.output.conv.{names.weight}"]
    blocks = blocks_per_group(encoder, names, shapes)
    settings = {"num_tokens": last[0], "width": first[0], "blocks_per_group": blocks, "decoder": decoder is not None}
    if decoder is not None:
        settings["code_dim"] = shapes[f"{decoder}blocks.input.{names.weight}"][0]
    tokenizer = build(part(TOKENIZER, **settings))
    keymap = network_map(tokenizer, "encoder.", encoder, names)
    return Part(tokenizer, keymap if decoder is None else keymap + network_map(tokenizer, "decoder.", decoder, names), name)


class OpenAiDalle(Format):
    """The names of openai/DALL-E: of its pickled modules, or of safetensors made of them."""

    family, layout = "dalle", "openai"
    licence, source = LICENCE, "https://github.com/openai/DALL-E"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """An encoder of 3 channels, alone or with a decoder beside it."""
        return any(shapes.get(f"{prefix}blocks.input.w", ())[1:2] == (3,) for prefix in ("", "encoder."))

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; there are no settings."""
        check_settings(options)
        shapes = checkpoint.shapes
        both = "encoder.blocks.input.w" in shapes
        return [tokenizer_part(shapes, OPENAI, "encoder." if both else "", "decoder." if "decoder.blocks.input.w" in shapes else None)]

    def holds(self, model: nn.Module) -> bool:
        """Return whether the model is this tokenizer."""
        return is_dalle(model)

    def write(self, model: nn.Module) -> Written:
        """Write both networks, or the encoder alone if there is no decoder, with the names that they have in files."""
        config: Mapping[str, Any] = model.config  # type: ignore[assignment]
        keymap = network_map(model, "encoder.", "encoder." if config["decoder"] else "", OPENAI)
        return Written((keymap + network_map(model, "decoder.", "decoder.", OPENAI)).to_theirs(model.state_dict()))


class TransformersDalle(Format):
    """The names of ``FlavaImageCodebook`` of transformers: the encoder."""

    family, layout = "dalle", "transformers"
    licence, source = LICENCE, "https://huggingface.co/docs/transformers/model_doc/flava"

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """The tensors of a codebook and no others: FLAVA's own files hold one beside its encoders."""
        return any(
            f"{p}blocks.input.weight" in shapes and all(name.startswith(f"{p}blocks.") for name in shapes) for p in ("", "image_codebook.")
        )

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; there are no settings."""
        check_settings(options)
        prefix = "" if "blocks.input.weight" in checkpoint.tensors else "image_codebook."
        return [tokenizer_part(checkpoint.shapes, FLAVA, prefix, None)]

    def holds(self, model: nn.Module) -> bool:
        """Return whether the model is this tokenizer, without the decoder, which this layout does not have."""
        return is_dalle(model) and not model.config["decoder"]  # type: ignore[index]

    def write(self, model: nn.Module) -> Written:
        """Write the encoder and the config of ``FlavaImageCodebook``."""
        config: Mapping[str, Any] = model.config  # type: ignore[assignment]
        said = {
            "model_type": "flava_image_codebook",
            "architectures": ["FlavaImageCodebook"],
            "num_groups": NUM_GROUPS,
            "input_channels": 3,
        }
        sizes = {"num_blocks_per_group": config["blocks_per_group"], "hidden_size": config["width"], "vocab_size": config["num_tokens"]}
        return Written(network_map(model, "encoder.", "", FLAVA).to_theirs(model.state_dict()), {**said, **sizes})


def is_dalle(model: nn.Module) -> bool:
    """Return whether a model is the tokenizer of DALL-E."""
    return path_of(type(model)) == "multimodal.tokenizers.image.dalle.DalleTokenizer"


FORMATS = (OpenAiDalle(), TransformersDalle())
