"""Errors in a config, in one line: where, and what."""

from __future__ import annotations

import re
from typing import Any

STRUCTURE = ("Does not validate against", "Subtypes", "Errors", "Given value", "Expected a NoneType", "Seq pos", "Not a valid subclass of")
NESTED = ("Does not validate against", "Parser key", "Problem with given class_path")
MAX_VALUE = 60
KEY = re.compile(r'(?:Parser key|Problem with parser key|Key) "([^"]+)"')
CALLABLE = re.compile(r"^Type .* expects a function or a callable class: ?")
CLASS = re.compile(r"Problem with given class_path '([^']+)'")


class ConfigError(ValueError):
    """What a config names cannot be built."""


def shorten(message: str) -> str:
    """Return the innermost reason of a jsonargparse error, with the path of keys and the class that lead to it; other messages as they are.

    jsonargparse reports every type that it tried, nested, with the whole value each time; the reason is the first line that is not about
    that nesting.
    """
    if not any(word in message for word in NESTED):
        return message
    keys: list[str] = []
    class_path = ""
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        keys += KEY.findall(text)
        named = CLASS.search(text)
        class_path = named.group(1) if named else class_path
        reason, _, value = CLASS.sub("", KEY.sub("", CALLABLE.sub("", text))).partition(". Got value: ")
        reason = re.sub(r"<class '([^']+)'>", r"\1", reason).strip(" :")
        if not reason or reason.startswith(STRUCTURE):
            continue
        if value and len(value) < MAX_VALUE:
            reason += f", got {value}"
        where = ".".join(keys)
        inside = f" ({class_path})" if class_path else ""
        return f"{where}{inside}: {reason}" if where else reason
    return message


def refuse_repeated_keys() -> None:
    """Let jsonargparse refuse a config that gives one key twice, where YAML would keep the last without a word."""
    import yaml
    from jsonargparse import get_loader, set_loader

    load = get_loader("yaml")
    if getattr(load, "refuses_repeated_keys", False):
        return

    def load_once(stream: str) -> Any:
        if ":" in stream:
            _check_keys(yaml.compose(stream, Loader=yaml.SafeLoader))
        return load(stream)

    load_once.refuses_repeated_keys = True  # type: ignore[attr-defined]
    set_loader("yaml", load_once, (yaml.YAMLError,))


def _check_keys(node: Any) -> None:
    """Refuse a mapping that has a key twice, at any depth.

    Raises:
        ValueError: it does; the message has the lines.
    """
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key.value, str) and key.value in lines:
                raise ValueError(f"key {key.value!r} is given twice, in lines {lines[key.value]} and {line}.")
            lines[str(key.value)] = line
            _check_keys(value)
