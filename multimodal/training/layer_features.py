"""What an encoder makes of items after several of its layers, in one pass, and one vector of each sample from it.

Letters in shapes: n tokens, s samples, w width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.heads import pool
from multimodal.nn import Encoded, Encoder

OUTPUT: Literal["out"] = "out"
Layer = int | Literal["out"]
"""A layer by its number, from 0, whose tokens are read before the final norm; or the encoder's output."""
Layers = list[Layer] | Literal["all"]
VectorOf = Literal["mean", "class", "class_and_mean"]
"""What a vector is read from: the mean of the tokens, the class token, or the two side by side (BEiT)."""


class InputTokens(NamedTuple):
    """The embedded tokens of one modality.

    Args:
        vectors: ``(n, d)``.
        sequence: ``(n,)`` int64, the sample of each.
        coordinates: ``(n, axes)``, where each lies in its item.
        expert: of all of them.
    """

    vectors: Tensor
    sequence: Tensor
    coordinates: Tensor
    expert: int = 0


def chosen_layers(encoder: Encoder, layers: Sequence[Layer] | Literal["all"]) -> list[Layer]:
    """Return the layers by their numbers from 0, in order, the output last.

    Args:
        encoder: whose layers.
        layers: numbers, negative ones from the end, or "out"; "all": every layer, and the output where a norm makes it another one than
            that of the last layer.

    Raises:
        ValueError: there is no such layer, or none is named.
    """
    depth = encoder.depth
    if layers == "all":
        return [*range(depth), *([OUTPUT] if encoder.norm is not None else [])]
    wrong = [layer for layer in layers if layer != OUTPUT and not (isinstance(layer, int) and -depth <= layer < depth)]
    if wrong or not layers:
        raise ValueError(f"layers must be 'all' or some of {-depth} to {depth - 1} and 'out', got {list(layers)}.")
    numbers: list[Layer] = sorted({layer % depth for layer in layers if isinstance(layer, int)})
    return [*numbers, *([OUTPUT] if OUTPUT in layers else [])]


def parse_layers(words: Sequence[str]) -> list[Layer] | Literal["all"]:
    """Return the layers that a command line names.

    Raises:
        ValueError: a word is neither a number nor "out", nor "all" alone.
    """
    if list(words) == ["all"]:
        return "all"
    try:
        return [OUTPUT if word == OUTPUT else int(word) for word in words]
    except ValueError:
        raise ValueError(f"layers must be 'all', or numbers and 'out', got {' '.join(words)!r}.") from None


def encode_layers(encoder: Encoder, parts: Sequence[InputTokens], layers: Sequence[Layer]) -> dict[Layer, Encoded]:
    """Encode tokens, those of all parts with one sample number together, and return what stands after each layer.

    Args:
        encoder: in the mode that is wanted.
        parts: at least one.
        layers: as ``chosen_layers`` returns them.
    """
    axes = max(part.coordinates.shape[1] for part in parts)
    coordinates = torch.cat([F.pad(part.coordinates, (0, axes - part.coordinates.shape[1])) for part in parts])
    expert = torch.cat([torch.full_like(part.sequence, part.expert) for part in parts])
    vectors, sequence = torch.cat([part.vectors for part in parts]), torch.cat([part.sequence for part in parts])
    numbers = [layer for layer in layers if isinstance(layer, int)]
    output, seen = encoder.forward_layers(vectors, sequence, coordinates, numbers, expert)
    found: dict[Layer, Encoded] = dict(zip(sorted(numbers), seen, strict=True))
    return {layer: output if layer == OUTPUT else found[layer] for layer in layers}


def vectors_of(encoded: Encoded, sequence: Int[Tensor, " n"], num_samples: int, vector: VectorOf = "mean") -> Float[Tensor, "s w"]:
    """Return one vector of each sample; zeros for one without tokens.

    Args:
        encoded: what stands after a layer.
        sequence: the sample of each token.
        num_samples: of all tokens.
        vector: what to read; "class_and_mean" has twice the encoder's width, or is the mean alone for an encoder without class token.

    Raises:
        ValueError: "class" of an encoder without class token, or another name.
    """
    if vector not in get_args(VectorOf):
        raise ValueError(f"a vector is read from one of {', '.join(get_args(VectorOf))}; got {vector!r}.")
    if vector != "class_and_mean":
        return pool(encoded, sequence, num_samples, vector)
    mean = pool(encoded, sequence, num_samples, "mean")
    return mean if encoded.class_token is None else torch.cat([pool(encoded, sequence, num_samples, "class"), mean], 1)


def vector_width(encoder: Encoder, vector: VectorOf) -> int:
    """Return the width of what ``vectors_of`` returns."""
    return encoder.dim * (2 if vector == "class_and_mean" and encoder.special is not None else 1)
