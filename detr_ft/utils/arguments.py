"""Checks of the arguments of functions, by name and with the option of the command where there is one."""

from __future__ import annotations

import operator
import os

from detr_ft.errors import InputError

_MODEL = "a run, a checkpoint's folder, owner/name on the Hub or embedded:NAME"


def check_whole_number(name: str, value: object, least: int) -> None:
    """Raise InputError unless an argument is a whole number of at least `least`."""
    try:
        valid = not isinstance(value, bool) and operator.index(value) >= least  # type: ignore[arg-type]
    except TypeError:
        valid = False
    if not valid:
        raise InputError(f"{name}: must be a whole number of {least} or above, got {value!r}")


def check_threshold(value: object) -> None:
    """Raise InputError unless a threshold of scores is None or from 0 to 1."""
    if value is None:
        return
    try:
        valid = not isinstance(value, (bool, str)) and 0 <= float(value) <= 1  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several values
        valid = False
    if not valid:
        raise InputError(f"threshold: must be a score from 0 to 1, got {value!r}. Write a percentage as a fraction")


def path_text(name: str, value: object, accepted: str = "a path") -> str:
    """Return a path as text. Raises InputError for another object, with its class and what is accepted."""
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str):
            return path
    raise InputError(f"{name}: must be {accepted}, got {_kind(value)}")


def model_text(value: object, name: str = "model") -> str:
    """Return the place of a model as text. Raises InputError for another object, such as a model itself."""
    if isinstance(value, (str, os.PathLike)):
        return path_text(name, value, _MODEL)
    remedy = ". Save it with save_pretrained, beside its image processor, and give the folder"
    raise InputError(
        f"{name}: must be {_MODEL}, got {_kind(value)}{remedy if hasattr(value, 'save_pretrained') else ''}"
    )


def check_list_of_texts(name: str, value: object, example: str) -> None:
    """Raise InputError for a single text, which would be used by letters, and for no sequence."""
    if isinstance(value, (str, bytes, os.PathLike)):
        raise InputError(f"{name}: must be a list, got the single value {str(value)!r}. Write {example}")
    if not hasattr(value, "__iter__"):
        raise InputError(f"{name}: must be a list, got {_kind(value)}. Write {example}")


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
