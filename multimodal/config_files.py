"""Configs as plain data: YAML files, with the files that they name by relative path put in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".yaml", ".yml")


def read_config(path: Path) -> Any:
    """Return what a YAML file says, with the content of each file that it names by a path relative to its own folder.

    Raises:
        ValueError: a file cannot be read.
    """
    return resolved(read_yaml(path), path.parent)


def read_yaml(path: Path) -> Any:
    """Return what a YAML file says, as it stands there.

    Raises:
        ValueError: it cannot be read.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def resolved(value: Any, folder: Path) -> Any:
    """Return settings with the content of the files that they name by a path relative to ``folder``.

    Raises:
        ValueError: a file cannot be read.
    """
    if isinstance(value, dict):
        return {name: resolved(part, folder) for name, part in value.items()}
    if isinstance(value, list):
        return [resolved(part, folder) for part in value]
    if isinstance(value, str) and value.endswith(SUFFIXES):
        return read_config(folder / value)
    return value


def settings_of_class(value: Any, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield, anywhere within settings, those whose ``class_path`` ends with one of the names; they can be changed in place."""
    if isinstance(value, dict):
        if str(value.get("class_path", "")).rpartition(".")[2] in names:
            yield value
        for part in value.values():
            yield from settings_of_class(part, names)
    elif isinstance(value, list):
        for part in value:
            yield from settings_of_class(part, names)
