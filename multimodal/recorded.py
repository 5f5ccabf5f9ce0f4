"""Objects that know the settings they were built with, so that a saved model can be built again.

A setting is written as JSON. Something to build later (``mlp: Callable[[int], nn.Module]``) is written like a config's: a class path and
its settings.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

ROOM = "multimodal."


class Recorded:
    """Keeps the arguments of the constructor, given or by default, as ``init_args``.

    The constructor's settings must be plain values, or classes (or partials of classes) that build a part.
    """

    init_args: dict[str, Any]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Record the arguments."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)
        bound.apply_defaults()
        object.__setattr__(self, "init_args", {name: value for name, value in bound.arguments.items() if name != "self"})
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Give copies and pickles the same arguments."""
        return (), self.init_args


def settings_of(built: Recorded, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the class path and the settings of an object, as JSON holds them.

    Args:
        built: the object.
        leave_out: arguments that whoever builds fills in.

    Raises:
        ValueError: a setting is neither plain nor a builder.
    """
    own = {name: _plain(f"{type(built).__name__}.{name}", value) for name, value in built.init_args.items() if name not in leave_out}
    return {"class_path": path_of(type(built)), "init_args": own}


def build(settings: Mapping[str, Any], *args: Any, **more: Any) -> Any:
    """Build what ``settings_of`` described; ``args`` are the arguments that were left out, in order, or by name.

    Raises:
        ValueError: a class is not of this package (a file must not choose what is run), or its settings do not fit.
    """
    builder = _builder(settings)
    try:
        return builder(*args, **more)
    except (TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"the settings of {settings['class_path']} do not fit: {error}") from error


def instantiate(settings: Mapping[str, Any]) -> Any:
    """Build an object whose parts are objects too, and not, as in ``build``, what builds them later.

    Raises:
        ValueError: as ``build``.
    """
    own = {key: _instantiated(value) for key, value in settings.get("init_args", {}).items()}
    return build({"class_path": settings.get("class_path"), "init_args": {}}, **own)


def _instantiated(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return instantiate(value)
    return from_plain(value)


def path_of(target: Any) -> str:
    """Return the import path of a class or function."""
    return f"{target.__module__}.{target.__qualname__}"


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(name, item) for key, item in value.items()}
    try:
        target, arguments = _unwrap(value)
    except TypeError as error:
        raise ValueError(f"{name} cannot be saved: {value!r} is {error}.") from error
    return {"class_path": path_of(target), "init_args": {key: _plain(f"{name}.{key}", item) for key, item in arguments.items()}}


def _unwrap(value: Any) -> tuple[type, dict[str, Any]]:
    """Return the class and keywords of a builder: a class, a partial of one, or jsonargparse's partial of functions and a class.

    Raises:
        TypeError: it is no such builder.
    """
    if inspect.isclass(value):
        return value, {}
    if not isinstance(value, partial):
        raise TypeError("neither a plain value nor a class to build")
    *functions, target = (value.func, *value.args)
    if not inspect.isclass(target) or not all(_is_glue(function) for function in functions):
        raise TypeError("a partial of something else than a class with keywords")
    return target, value.keywords


def _is_glue(value: Any) -> bool:
    """Return whether it is what jsonargparse puts before a class: functions, and in later versions an object of its own."""
    return inspect.isfunction(value) or type(value).__module__.startswith("jsonargparse.")


def _builder(settings: Mapping[str, Any]) -> Callable[..., Any]:
    path = settings.get("class_path")
    if not isinstance(path, str) or not path.startswith(ROOM):
        raise ValueError(f"a saved model names {path!r}, which is not of this package: build such a model in Python.")
    module, _, name = path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"a saved model names {path}, which this version does not have: {error}") from error
    if not inspect.isclass(target) or not target.__module__.startswith(ROOM):
        raise ValueError(f"a saved model names {path}, which is not a class of this package.")
    init_args = settings.get("init_args", {})
    if not isinstance(init_args, Mapping):
        raise ValueError(f"the settings of {path} are no names with values: {init_args!r}.")
    return partial(target, **{key: from_plain(value) for key, value in init_args.items()})


def from_plain(value: Any) -> Any:
    """Return a setting as a constructor takes it: what builds a part where JSON has a class path, a tuple where it has a list.

    Raises:
        ValueError: a class is not of this package.
    """
    if isinstance(value, Mapping):
        return _builder(value) if "class_path" in value else {key: from_plain(item) for key, item in value.items()}
    return tuple(from_plain(item) for item in value) if isinstance(value, list) else value
