"""``multimodal import`` and ``multimodal export``."""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multimodal.pretrained.exporting import Exported
    from multimodal.pretrained.model import PretrainedModel

RUN_CONFIG = "config.yaml"
WORDS = "tokenizer.json"
PROGRAMS = ("torch-export", "onnx", "onnx-int8")


def import_main(arguments: list[str]) -> int:
    """Run ``multimodal import`` and return its exit code."""
    parser = argparse.ArgumentParser(
        "multimodal import",
        description="Read a published checkpoint, and write a folder for multimodal.from_pretrained, configs and `multimodal export`.",
        epilog="The family is found from the names of the tensors; every tensor is accounted for. Nothing is downloaded but hf-hub: names, "
        "and no file can run code.",
        allow_abbrev=False,
    )
    parser.add_argument("source", help="weight file (.safetensors, .pth, .pt, .bin, .ckpt, .pkl), folder, or hf-hub:OWNER/NAME")
    parser.add_argument("--to", type=Path, required=True, help="folder to write into")
    parser.add_argument("--family", help="only this family, such as beit; default: found")
    parser.add_argument("--layout", help="only this layout, such as transformers; default: found")
    parser.add_argument("--num-heads", type=int, help="attention heads, which tensors do not tell; default: the family's rule")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="what else a family asks for, such as statistics=imagenet"
    )
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="resample the positions for images of this side")
    parser.add_argument("--sha256", help="refuse a file with another hash")
    options = parser.parse_args(arguments)
    _check_empty(options.to)

    from multimodal.pretrained.format import ImportOptions
    from multimodal.pretrained.importing import import_checkpoint
    from multimodal.pretrained.loading import fetch

    said = ImportOptions(options.num_heads, _named_values(options.set))
    source = fetch(options.source)
    imported = import_checkpoint(source, options.family, options.layout, said, options.sha256)
    for line in imported.report.lines():
        print(line)
    for name, part in imported.parts.items():
        if options.image_size is not None:
            part = _resize(part, options.image_size)
        folder = options.to / name
        part.save_pretrained(folder)  # type: ignore[operator]
        print(f"{folder}: {type(part).__name__}, {sum(x.numel() for x in part.parameters()):,} parameters")
    words = (source if source.is_dir() else source.parent) / WORDS
    if words.is_file():
        shutil.copyfile(words, options.to / WORDS)
        print(f"{options.to / WORDS}: the tokenizer that stood beside the weights")
    return 0


def export_main(arguments: list[str]) -> int:
    """Run ``multimodal export`` and return its exit code."""
    parser = argparse.ArgumentParser(
        "multimodal export",
        description="Write a model in another form: a folder of ours, the layout of timm, transformers or an original, a program, or ONNX.",
        epilog="Formats: multimodal (from a run), torch-export (.pt2), onnx, onnx-int8, or the name of a layout; without --format the "
        "model's are listed.",
        allow_abbrev=False,
    )
    parser.add_argument("source", help="saved model, run of `multimodal fit`, or a foreign checkpoint")
    parser.add_argument("--format", help="multimodal, torch-export, onnx, onnx-int8, transformers, timm, ...")
    parser.add_argument("--to", type=Path, help="folder to write into")
    parser.add_argument("--family", help="whose layout, where several fit")
    parser.add_argument("--modality", help="of a program; default: the only one")
    parser.add_argument("--output", choices=["features", "classes"], help="of a program; default: classes where there is such a head")
    parser.add_argument("--max-length", type=int, default=512, help="of a program: most tokens of a sequence (default: 512)")
    options = parser.parse_args(arguments)
    if options.format is not None and options.to is None:
        parser.error("--to is needed")
    if options.to is not None:
        _check_empty(options.to)

    model = _load(Path(options.source) if ":" not in options.source else options.source)
    if options.format is None:
        print("\n".join(_formats(model)))
        return 0
    for line in _export(model, options):
        print(line)
    return 0


def _export(model: Any, options: argparse.Namespace) -> list[str]:
    from multimodal.pretrained.exporting import DenseModel, export_layout, export_onnx, export_program, quantize_onnx
    from multimodal.pretrained.exporting.onnx import OnnxModel

    if options.format == "multimodal":
        model.save_pretrained(options.to)
        return [f"{options.to}: {type(model).__name__}"]
    if options.format not in PROGRAMS:
        return _said_of_layout(options.to, export_layout(model, options.format, options.to, options.family))
    dense = DenseModel(model, options.modality, options.output)
    if options.format == "torch-export":
        path = options.to / "model.pt2"
        export_program(dense, path, options.max_length)
        return [_said(path, dense, _program(path))]
    path = options.to / "model.onnx"
    export_onnx(dense, path, options.max_length)
    if options.format == "onnx-int8":
        whole, path = path, options.to / "model.int8.onnx"
        quantize_onnx(whole, path)
        whole.unlink()
    return [_said(path, dense, OnnxModel(path))]


def _said_of_layout(folder: Path, exported: Exported) -> list[str]:
    """Say what was written, what was left out, and what whoever reads it has to know."""
    lines = [f"{folder}: {exported.form.family} in the layout of {exported.form.layout}"]
    left_out = exported.written.left_out
    for why in dict.fromkeys(left_out.values()):
        lines.append(f"  left out: {', '.join(name for name, other in left_out.items() if other == why)}: {why}")
    if settings := exported.options.settings:
        lines.append("  not in the files, to read them back: " + " ".join(f"--set {name}={value}" for name, value in settings.items()))
    return lines


def _said(path: Path, dense: Any, run: Callable[..., Any]) -> str:
    return f"{path}: {dense.output}, {path.stat().st_size:,} bytes; {_compare(dense, run)}"


def _program(path: Path) -> Callable[..., Any]:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")  # of torch's own reader
        run: Callable[..., Any] = torch.export.load(path).module()
    return run


def _compare(dense: Any, run: Callable[..., Any]) -> str:
    """Say how far the exported model is from the model, on noise; padding, where the result means nothing, is left out."""
    import torch

    values, *valid = dense.example(noise=True)
    with torch.no_grad():
        expected, got = dense(values, *valid), run(values, *valid)
    if valid and dense.output == "features":
        expected, got = (x[:, -valid[0].shape[1] :][valid[0]] for x in (expected, got))
    cosine = torch.cosine_similarity(expected, got, dim=-1).min()
    return f"largest difference {float((expected - got).abs().max()):.1e} of {float(expected.abs().max()):.2g}, cosine {float(cosine):.6f}"


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run of ``multimodal fit``."""
    return (folder / RUN_CONFIG).is_file() and (folder / "checkpoints").is_dir()


def model_of_run(folder: str | Path) -> PretrainedModel:
    """Return the encoder of a run with its last weights, the embeddings of its modalities, and its heads.

    Args:
        folder: of the run, as given to ``fit --run``.

    Raises:
        ValueError: the folder holds no run of an encoder, or one that cannot be read.
    """
    import yaml

    from multimodal.lightning_cli import load_run
    from multimodal.pretrained.from_training import model_of

    module, _ = load_run(folder)
    config = yaml.safe_load((Path(folder) / RUN_CONFIG).read_text())
    return model_of(module, config["model"]["init_args"].get("modalities", {}))


def _load(source: str | Path) -> Any:
    from multimodal.pretrained.loading import from_pretrained

    return model_of_run(source) if isinstance(source, Path) and is_run(source) else from_pretrained(source)


def _formats(model: Any) -> list[str]:
    from multimodal.pretrained.exporting import layouts_for
    from multimodal.pretrained.model import PretrainedModel

    own = ["multimodal", *(PROGRAMS if isinstance(model, PretrainedModel) else ())]
    return [*own, *(f"{form.layout} (family {form.family})" for form in layouts_for(model))]


def _resize(part: Any, size: int) -> Any:
    from multimodal.pretrained.resolution import at_image_size

    return at_image_size(part, size)


def _named_values(entries: list[str]) -> dict[str, str]:
    for entry in entries:
        if "=" not in entry:
            raise ValueError(f"--set takes NAME=VALUE, got {entry!r}.")
    return dict(entry.split("=", 1) for entry in entries)


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: choose another with --to.")
