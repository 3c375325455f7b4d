"""Where the recipes, the demo and the embedded checkpoint lie: beside the package in a clone, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
EMBEDDED = {"small": "embedded/small"}  # below the recipes


def recipes_folder() -> Path:
    """The folder of the recipes that come with the toolkit."""
    return _shared("recipes")


def demo_folder() -> Path:
    """The folder of the demo's app."""
    return _shared("demo")


def embedded_checkpoint(name: str) -> Path:
    """The folder of an embedded checkpoint; raises KeyError for a name that is none."""
    return recipes_folder() / EMBEDDED[name]


def _shared(name: str) -> Path:
    inside = _PACKAGE / "_share" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
