"""Packages whose public names are imported when they are first used, as their stub lists them."""

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import lazy_loader


def lazy_package(name: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list], list]:
    """`__getattr__`, `__dir__` and `__all__` of a package with an `__init__.pyi` beside `file`."""
    sys.modules[name].__class__ = _Package
    return lazy_loader.attach_stub(name, file)


class _Package(types.ModuleType):
    """Shows a function under its name, also once the module of the same name was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType):  # which Python sets after any import of it
            value = vars(value).get(name, value)
        super().__setattr__(name, value)


def objects_at(path: Any) -> Any:
    """`io.objects` for a URI, None for a path: TensorStore is loaded where a URI is named."""
    return importlib.import_module("sfvq_jax.io.objects") if "://" in str(path) else None
