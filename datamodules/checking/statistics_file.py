"""Statistics of shards as a file: all of them, or the part of a config that normalises with them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multimodal.atomic import atomic_file
from multimodal.datamodules.checking.statistics import MeanAndSpread, Statistics, mean_and_spread

DIGITS = 5
MEAN, STD = "mean", "std"


def write_statistics(statistics: Mapping[str, Statistics], path: Path | str, part: str | None = None) -> None:
    """Write statistics as YAML.

    Args:
        statistics: from ``measure_shards``.
        path: of the file.
        part: class path of what takes ``mean`` and ``std``; the file is then the part of a config with ``class_path`` and ``init_args``
            that names them, and what else was measured is its comment. None: the file holds all that was measured.

    Raises:
        ValueError: there is no such class, it takes no ``mean`` and ``std``, or nothing, or more than one thing, has them.
    """
    import yaml

    content: dict[str, Any] = {name: _content(found) for name, found in statistics.items()}
    if part is None:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    else:
        settings = _settings(statistics, part)
        measured = "".join(f"# {line}\n" for line in yaml.safe_dump(content, sort_keys=False, allow_unicode=True).splitlines())
        text = measured + yaml.safe_dump({"class_path": part, "init_args": settings}, sort_keys=False, default_flow_style=None)
    with atomic_file(Path(path)) as file:
        file.write(text.encode())


def _content(found: Statistics) -> dict[str, Any]:
    content: dict[str, Any] = {"fields": sorted(found.fields), "files": len(next(iter(found.values.values()), ()))}
    if found.bad:
        content["not measured"] = found.bad
    for name in found.values:
        content[name] = {key: _rounded(value) for key, value in found.quantiles(name).items()}
    for name, by_channels in found.moments.items():
        for moments in by_channels.values():
            content[label(name, len(by_channels), len(moments.sums))] = _mean_and_std(mean_and_spread(moments))
    return content


def label(name: str, kinds: int, channels: int) -> str:
    """Return the name of a measure; where files differ in their channels, with the number of them."""
    return name if kinds == 1 else f"{name} of {channels} channels"


def _settings(statistics: Mapping[str, Statistics], part: str) -> dict[str, Any]:
    """Return mean and std, checked against the class that is to take them."""
    having = [moments for found in statistics.values() for kinds in found.moments.values() for moments in kinds.values()]
    if len(having) != 1:
        raise ValueError(f"one mean and one spread are needed for {part}, and {len(having)} were measured: choose one with --fields.")
    module, _, name = part.rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"there is no class {part}: {error}.") from None
    if not {MEAN, STD} <= set(parameters):
        raise ValueError(f"{part} takes no mean and std, only {', '.join(parameters)}.")
    return _mean_and_std(mean_and_spread(having[0]))


def _mean_and_std(found: MeanAndSpread) -> dict[str, Any]:
    return {MEAN: [_rounded(value) for value in found.mean], STD: [_rounded(value) for value in found.std]}


def _rounded(value: float) -> float | int:
    if value == int(value):
        return int(value)
    return round(value, 1) if abs(value) >= 10**3 else float(f"{value:.{DIGITS}g}")
