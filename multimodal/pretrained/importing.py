"""Foreign checkpoints -> our models: the family is found from the tensors, and every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from multimodal.pretrained.checkpoint import Checkpoint, read_checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part
from multimodal.pretrained.model import PretrainedModel
from multimodal.pretrained.registry import find_format
from multimodal.pretrained.settings import Origin

SHOWN = 5
NO_OPTIONS = ImportOptions()


@dataclass(frozen=True)
class Imported:
    """What was made of a checkpoint.

    Args:
        parts: name -> model or tokenizer; "" for one alone.
        report: what happened to each tensor.
    """

    parts: dict[str, nn.Module]
    report: ImportReport


@dataclass(frozen=True)
class ImportReport:
    """Where the tensors of a checkpoint went.

    Args:
        origin: file, family, layout, licence, hash.
        num_read: tensors in the checkpoint.
        num_used: those that became ours.
        num_parameters: numbers in those.
        ignored: (their name, why it is not needed).
        kept: (our name, why its first value stays).
    """

    origin: Origin
    num_read: int
    num_used: int
    num_parameters: int
    ignored: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """Return the report as text."""
        said = [
            f"{self.origin.family} in the layout of {self.origin.layout} ({self.origin.source})",
            f"licence of the published weights: {self.origin.licence}",
            f"sha256 {self.origin.sha256} ({self.origin.file})",
            f"{self.num_read} tensors: {self.num_used} used ({self.num_parameters:,} numbers), {len(self.ignored)} not needed",
        ]
        for title, rows in (("not needed", self.ignored), ("not in the checkpoint", self.kept)):
            reasons = {why: [name for name, other in rows if other == why] for _, why in rows}
            for why, names in reasons.items():
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                said.append(f"  {title}: {', '.join(names[:SHOWN])}{more}: {why}")
        return said


def import_checkpoint(
    path: str | Path,
    family: str | None = None,
    layout: str | None = None,
    options: ImportOptions = NO_OPTIONS,
    sha256: str | None = None,
) -> Imported:
    """Read a foreign checkpoint.

    Args:
        path: of the weight file or folder; see ``read_checkpoint``.
        family: the only one to consider; None: found from the names of the tensors.
        layout: the only one to consider.
        options: what the tensors do not say.
        sha256: that the file must have, hex; None: any.

    Raises:
        ValueError: the file cannot be read or is not the one wanted, no family fits, or a tensor is missing, left over, or of
            another shape; nothing is half-loaded.
    """
    checkpoint = read_checkpoint(path)
    if sha256 is not None and checkpoint.sha256 != sha256.lower():
        raise ValueError(f"{path} has the sha256 {checkpoint.sha256}, not {sha256}: it is not the file you want, or it is damaged.")
    try:
        form = find_format(checkpoint.shapes, checkpoint.config, family, layout)
        parts = form.read(checkpoint, options)
        origin = Origin(form.family, form.layout, form.licence, form.source, Path(path).name, checkpoint.sha256)
        report = _account(checkpoint, form, parts, origin)
        return Imported({part.name: _load(part, checkpoint, origin) for part in parts}, report)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _account(checkpoint: Checkpoint, form: Format, parts: list[Part], origin: Origin) -> ImportReport:
    """Say where each tensor goes.

    Raises:
        ValueError: a tensor is used by no part and no rule says why.
    """
    used = {name for part in parts for entry in part.keymap.entries for name in entry.theirs}
    ignored: list[tuple[str, str]] = []
    extra: list[tuple[str, str]] = []
    for name in checkpoint.tensors:
        if name in used:
            continue
        why = next((reason for part in parts if (reason := part.keymap.reason(name)) is not None), None)
        (extra if why is None else ignored).append((name, why or ""))
    if extra:
        names = ", ".join(name for name, _ in extra[:SHOWN]) + (f" and {len(extra) - SHOWN} more" if len(extra) > SHOWN else "")
        raise ValueError(f"{len(extra)} tensors have no place in {form.family} ({form.layout}): {names}.")
    kept = [(name, why) for part in parts for name, why in part.keymap.kept.items()]
    numbers = sum(checkpoint.tensors[name].numel() for name in used if name in checkpoint.tensors)
    return ImportReport(origin, len(checkpoint.tensors), len(used), numbers, tuple(ignored), tuple(kept))


def _load(part: Part, checkpoint: Checkpoint, origin: Origin) -> nn.Module:
    load_exactly(part.target, part.keymap.to_ours(checkpoint.tensors), set(part.keymap.kept))
    if isinstance(part.target, PretrainedModel):
        part.target.settings = replace(part.target.settings, origin=origin)
    return part.target.eval()


def load_exactly(module: nn.Module, state: dict[str, Tensor], kept: Set[str] = frozenset()) -> None:
    """Copy tensors into a module: all of them, into tensors of the same shape, as float32 where the module's are.

    Args:
        module: to be filled.
        state: name -> tensor.
        kept: names that may be missing.

    Raises:
        ValueError: a tensor is missing, left over, of another shape, or not finite in kind (such as integers for weights).
    """
    own = module.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state and name not in kept]
    problems += [f"{name} is left over" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(x.shape)} instead of {tuple(own[name].shape)}"
        for name, x in state.items()
        if name in own and x.shape != own[name].shape
    ]
    problems += [
        f"{name} is {x.dtype}" for name, x in state.items() if name in own and x.is_floating_point() != own[name].is_floating_point()
    ]
    if problems:
        more = f" and {len(problems) - SHOWN} more problems" if len(problems) > SHOWN else ""
        raise ValueError(f"the weights do not fit {type(module).__name__}: {'; '.join(problems[:SHOWN])}{more}.")
    module.load_state_dict({name: x.to(own[name].dtype) for name, x in state.items()}, strict=False)
