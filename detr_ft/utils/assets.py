"""Paths of the recipes, the demo and the embedded checkpoints, in a clone and in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
EMBEDDED = {"small": "embedded/small"}  # below the recipes


def recipes_folder() -> Path:
    """Return the folder of the recipes."""
    return _shared("recipes")


def demo_folder() -> Path:
    """Return the folder of the demo."""
    return _shared("demo")


def embedded_checkpoint(name: str) -> Path:
    """Return the folder of an embedded checkpoint. Raises KeyError for an unknown name."""
    return recipes_folder() / EMBEDDED[name]


def _shared(name: str) -> Path:
    inside = _PACKAGE / "_share" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
