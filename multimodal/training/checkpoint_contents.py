"""What a checkpoint says about itself, and whether it fits a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from multimodal import __version__
from multimodal.nn import Frozen

KEY = "multimodal"
FORMAT = 1
"""To be raised when checkpoints written from then on cannot be read by older versions."""
MOST_NAMES = 3


def describe(model: nn.Module, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """Return what to keep under ``KEY`` in a checkpoint.

    Args:
        model: whose checkpoint it is.
        fingerprints: modality name -> fingerprint of the frozen tokenizer that its targets come from.
    """
    said = {"format": FORMAT, "version": __version__, "model": _class_path(model), "tokenizers": dict(fingerprints)}
    frozen = _frozen(model)
    return said | {"frozen": frozen} if frozen else said


def close_epoch(loops: dict[str, Any]) -> None:
    """Note in the progress of the loops that an epoch is over, where its last batch is done.

    Lightning notes it later, after callbacks have saved. A run continued from such a checkpoint goes on well, but one continued from
    *its* checkpoints would begin the epoch anew, or take a batch too many where there is no validation.

    Args:
        loops: state of the fit loop, as in a checkpoint; changed in place.
    """
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    if not batches["is_last_batch"] or epochs["total"]["processed"] == epochs["total"]["started"]:
        return
    for kind in ("total", "current"):
        batches[kind]["completed"] = batches[kind]["processed"]
        epochs[kind]["processed"] = epochs[kind]["started"]


def check_fits(checkpoint: Mapping[str, Any], model: nn.Module, fingerprints: Mapping[str, str], where: str = "the checkpoint") -> None:
    """Refuse a checkpoint that a model cannot be continued from, before anything of it is loaded.

    One that says nothing about itself (of a version before it could) is judged by its tensors alone.

    Args:
        checkpoint: as read from the file.
        model: that is to be loaded.
        fingerprints: as for ``describe``.
        where: the checkpoint's name in messages.

    Raises:
        ValueError: it is of another format, model, set of modalities or tokenizer, or its tensors have other names or shapes.
    """
    said = checkpoint.get(KEY)
    if said is not None:
        _check_said(said, model, fingerprints, where)
    if "state_dict" in checkpoint:  # sharded strategies load it elsewhere
        _check_tensors(checkpoint["state_dict"], model.state_dict(), f"{where}{_version(said)}")


def check_teachers(checkpoint: Mapping[str, Any], model: nn.Module, where: str = "the checkpoint") -> None:
    """Refuse to go on with other frozen models than a checkpoint was trained with: targets would change in the middle of a run.

    A model that only one of the two has is no matter of this check, nor is a checkpoint of a version before it noted them.

    Args:
        checkpoint: as read from the file.
        model: that is to be trained on.
        where: the checkpoint's name in messages.

    Raises:
        ValueError: a frozen model of the same place is another one.
    """
    saved = (checkpoint.get(KEY) or {}).get("frozen") or {}
    for name, fingerprint in _frozen(model).items():
        if saved.get(name, fingerprint) != fingerprint:
            raise ValueError(
                f"{where} was trained with another {name}: its fingerprint is {saved[name][:12]}, the config's is {fingerprint[:12]}. "
                "Give the same one, or begin a new run."
            )


def _frozen(model: nn.Module) -> dict[str, str]:
    """Return place -> fingerprint of the models held aside."""
    return {name: module.fingerprint() for name, module in model.named_modules() if isinstance(module, Frozen)}


def _check_said(said: Any, model: nn.Module, fingerprints: Mapping[str, str], where: str) -> None:
    if not isinstance(said, Mapping) or not {"format", "version", "model", "tokenizers"} <= said.keys():
        raise ValueError(f"{where} is damaged: what it says about itself under {KEY!r} is not what any version wrote.")
    if not isinstance(said["format"], int) or not 1 <= said["format"] <= FORMAT:
        raise ValueError(
            f"{where} has format {said['format']!r}, written by multimodal {said['version']}; "
            f"this version, {__version__}, reads 1 to {FORMAT}."
        )
    if said["model"] != _class_path(model):
        raise ValueError(f"{where} is of a {said['model']}, not of a {_class_path(model)}.")
    saved = said["tokenizers"]
    if saved.keys() != fingerprints.keys():
        raise ValueError(f"{where} has the modalities {_names(saved)}; the model has {_names(fingerprints)}.")
    for name, fingerprint in fingerprints.items():
        if saved[name] != fingerprint:
            raise ValueError(
                f"{where} was trained with another tokenizer for {name!r}: its fingerprint is {saved[name][:12]}, the config's is "
                f"{fingerprint[:12]}. Ids would mean other things."
            )


def _check_tensors(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    reshaped = [name for name in wanted if name in saved and saved[name].shape != wanted[name].shape]
    differences = {
        "missing": [name for name in wanted if name not in saved],
        "not in the model": [name for name in saved if name not in wanted],
        "of another shape": [f"{name} {tuple(saved[name].shape)} instead of {tuple(wanted[name].shape)}" for name in reshaped],
    }
    found = [f"{len(names)} {what}: {_some(names)}" for what, names in differences.items() if names]
    if found:
        raise ValueError(f"{where} does not fit the model; {'; '.join(found)}. Nothing was loaded.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _version(said: Mapping[str, Any] | None) -> str:
    return f" (of multimodal {said['version']})" if said and said["version"] != __version__ else ""


def _class_path(model: nn.Module) -> str:
    kind = type(model)
    if isinstance(model, FSDPModule):
        kind = kind.__mro__[2]  # its class is made of itself, FSDPModule and the class that it had
    return f"{kind.__module__}.{kind.__qualname__}"
