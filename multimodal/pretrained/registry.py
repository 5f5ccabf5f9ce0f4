"""All foreign formats, found by what they are in: every module of ``formats/`` lists its own in ``FORMATS``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

from multimodal.pretrained import formats
from multimodal.pretrained.format import Format, Shapes


@cache
def all_formats() -> tuple[Format, ...]:
    """Return one object of each format, in the order of their modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    modules = [importlib.import_module(f"{formats.__name__}.{name}") for name in names]
    return tuple(form for module in modules for form in getattr(module, "FORMATS", ()))


def find_format(shapes: Shapes, config: Mapping[str, Any], family: str | None = None, layout: str | None = None) -> Format:
    """Return the format of a checkpoint, found from the names and shapes of its tensors.

    Args:
        shapes: name -> shape.
        config: what stands beside it.
        family: the only one to consider.
        layout: the only one to consider.

    Raises:
        ValueError: none or several match; the message tells names of tensors, or the formats.
    """
    asked = [f for f in all_formats() if family in (None, f.family) and layout in (None, f.layout)]
    if not asked:
        known = ", ".join(sorted({f"{f.family} ({f.layout})" for f in all_formats()}))
        raise ValueError(f"no format {family or 'any'} in the layout {layout or 'any'}; known: {known}.")
    found = [f for f in asked if f.matches(shapes, config)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(list(shapes)[:5])
    if not found:
        wanted = f"the names of {family or 'any known family'}" + (f" in the layout of {layout}" if layout else "")
        raise ValueError(f"its {len(shapes)} tensors ({names} ...) do not have {wanted}.")
    choices = ", ".join(f"{f.family} ({f.layout})" for f in found)
    raise ValueError(f"its tensors ({names} ...) may be {choices}: name the family.")


def format_of(family: str, layout: str) -> Format:
    """Return a format by name.

    Raises:
        ValueError: there is no such format; the message lists those of the family, or the families.
    """
    for form in all_formats():
        if (form.family, form.layout) == (family, layout):
            return form
    layouts = sorted(f.layout for f in all_formats() if f.family == family)
    known = f"its layouts are {layouts}" if layouts else f"families are {sorted({f.family for f in all_formats()})}"
    raise ValueError(f"no layout {layout!r} of family {family!r}: {known}.")
