"""``multimodal sizes``: what encoders cost, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from jsonargparse import ArgumentParser

from multimodal.config_errors import shorten
from multimodal.nn import Encoder
from multimodal.training.model_size import InputSize, ModelSize, measure, parse_input

DEFAULT_INPUTS = ("224/16", "384/16", "512")
COLUMNS = ("encoder", "input", "tokens", "parameters", "forward, G multiply-adds", "training state, GiB", "activations of a sample, MiB")


def main(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="multimodal sizes",
        allow_abbrev=False,
        description="Print what encoders cost, counted by building and running them without weights: parameters with the linear layer that "
        "embeds the patches, multiply-adds of a forward pass, and memory of training in float32: weights, gradients and AdamW's averages, "
        "and what a forward pass of one sample keeps, attention weights included (fused kernels of GPUs keep none of these).",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="config of an encoder, such as configs/encoder/base.yaml")
    parser.add_argument(
        "--inputs",
        nargs="+",
        default=list(DEFAULT_INPUTS),
        metavar="INPUT",
        help="512: tokens; 224/16: side and patch in pixels; 16x224/2x16: a clip of 16 frames in patches of 2 (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    try:
        inputs = [parse_input(text) for text in options.inputs]
        encoders = [(file.stem, read_encoder(file)) for file in options.files]
        print(table((name, size, _measured(name, build, size)) for name, build in encoders for size in inputs))
    except (ValueError, argparse.ArgumentError) as error:
        print(f"error: {shorten(str(error))}", file=sys.stderr)
        return 2
    return 0


def _measured(name: str, build: Callable[[], Encoder], size: InputSize) -> ModelSize:
    try:
        return measure(build, size)
    except ValueError as error:
        raise ValueError(f"encoder {name} does not take input {size.name}: {error}") from error


def read_encoder(file: Path) -> Callable[[], Encoder]:
    """Return what builds the encoder of a config.

    Raises:
        ValueError: there is no such file, or it is no config of an encoder.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Encoder)
    try:
        config = parser.parse_path(str(file))
    except argparse.ArgumentError as error:
        raise ValueError(f"{file} is no config of an encoder: {error}") from error
    return lambda: Encoder(**parser.instantiate(config).as_dict())


def table(rows: Iterable[tuple[str, InputSize, ModelSize]]) -> str:
    """Return a markdown table."""
    lines = [" | ".join(COLUMNS), "|".join(["---", "---", *["---:"] * (len(COLUMNS) - 2)])]
    for name, size, cost in rows:
        counted = (f"{size.tokens:,}", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e9:.2f}")
        memory = (f"{cost.state_bytes / 2**30:.2f}", f"{cost.activation_bytes / 2**20:,.0f}")
        lines.append(" | ".join((name, size.name, *counted, *memory)))
    return "\n".join(f"| {line} |" if number != 1 else f"|{line}|" for number, line in enumerate(lines))
