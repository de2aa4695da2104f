"""Packages that resolve their public names on first use (PEP 562), so that importing them costs nothing."""

import importlib
import sys
from collections.abc import Callable, Collection
from typing import Any


def lazily(
    package: str, home: dict[str, str], modules: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    ``home`` has the module inside vitlite that defines each public name, such as ``{"read_image": "images.reading"}``;
    ``modules`` are those of vitlite that are attributes of the package.
    """

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"vitlite.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"vitlite.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *home, *modules})
