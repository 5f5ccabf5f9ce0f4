"""Find parts that do not fit each other before any data is read: they are tried on the transform's example."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from multimodal.batch import Items, Sample, collate
from multimodal.modality import Input, Modality
from multimodal.protocols import Renderer, Tokenizer, Transform


@torch.no_grad()
def check_modality(name: str, modality: Modality, dim: int) -> None:
    """Cut, tokenize, hide, embed and draw the example of a modality's transform, if it has one.

    Args:
        name: of the modality, for the message.
        modality: on the CPU, as it was built.
        dim: width of the encoder.

    Raises:
        ValueError: two parts do not fit: what the part that found it says, and the name.
    """
    items = _example(name, modality.transform)
    if items is None:
        return
    with _named(name):
        items = modality.prepared(items, train=False)
        view = modality.masked_view(items)
        _check_width(modality.embed(view.tokens, view.shown_as_mask), dim)
        modality.head.check(view.targets)
        if modality.decoder is not None:
            modality.decoder.check(view.tokens.coordinates)
        if modality.renderer is not None:
            values = items.values if items.lengths is not None else items.values[0]
            modality.renderer.render(modality.predicted, values, view.targets, view.targets, view.masked)


@torch.no_grad()
def check_input(name: str, modality: Input, dim: int) -> None:
    """Cut and embed the example of a modality's transform, if it has one.

    Args:
        name: of the modality, for the message.
        modality: on the CPU, as it was built.
        dim: width of the encoder.

    Raises:
        ValueError: as ``check_modality``.
    """
    items = _example(name, modality.transform)
    if items is None:
        return
    with _named(name):
        _check_width(modality.plain_tokens(modality.prepared(items, train=False))[0], dim)


def _example(name: str, transform: Transform) -> Items | None:
    """Return a batch of the one example of a transform."""
    example = transform.example()
    return None if example is None else collate([Sample("example", {name: example})]).items[name]


@torch.no_grad()
def check_tokenizer(name: str, tokenizer: Tokenizer, transform: Transform, renderer: Renderer | None = None) -> None:
    """Tokenize and draw the example of a transform, if it has one.

    Raises:
        ValueError: as ``check_modality``.
    """
    items = _example(name, transform)
    if items is None:
        return
    with _named(name):
        ids = tokenizer.encode(*items.for_tokenizer)
        if renderer is not None:
            values = items.for_tokenizer[0] if items.lengths is not None else items.for_tokenizer[0][0]
            renderer.render(tokenizer, values, ids, ids, torch.zeros(len(ids), dtype=torch.bool))


def _check_width(vectors: torch.Tensor, dim: int) -> None:
    if vectors.shape[-1] != dim:
        raise ValueError(f"its embedding gives vectors of {vectors.shape[-1]} values, the encoder's dim is {dim}.")


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise ValueError(f"the parts of modality {name!r} do not fit each other: {str(error).splitlines()[0]}") from error
