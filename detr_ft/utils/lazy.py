"""Public names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(
    package: str, modules: Mapping[str, str], distribution: str = ""
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package.

    `modules` has the module of each public name, or `module:name` if the name differs there. With a `distribution`, its
    installed version is `__version__`.
    """

    def load(name: str) -> object:
        if name in modules:
            module, _, original = modules[name].partition(":")
            value = getattr(import_module(module), original or name)
        elif distribution and name == "__version__":
            value = _version(distribution)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # the next use does not call this function
        return value

    def names() -> list[str]:
        return sorted([*modules, "__version__"] if distribution else modules)

    return load, names


def _version(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slower than the rest of this module

    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a tree that is not installed
        return "0+unknown"
