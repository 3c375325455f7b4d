"""Text that a user names, as lines and as JSON: what can't be read is told in words, whatever it is that fails."""

from __future__ import annotations

import json
from pathlib import Path
from reprlib import Repr

from detr_ft.errors import InputError

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark; its lines end with "\\n"."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file doesn't exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text ({error})") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Only an end of line ends one: `str.splitlines` would also part texts within them."""
    return read_text(path).removesuffix("\n").split("\n")


def parse_json(text: str) -> object:
    """What a JSON text says. Raises ValueError, whose message tells what is wrong with it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("not valid JSON of a data set (nested too deeply)") from error
    except ValueError as error:
        raise ValueError("not valid JSON of a data set (a number of thousands of digits)") from error


def is_storable(text: str) -> bool:
    """Whether a text can be a file's name and be written as UTF-8: it holds no NUL, and no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def shown(value: object) -> str:
    """A value as a message can hold it: quoted, and cut where it is long or deep."""
    return _SHORT.repr(value)
