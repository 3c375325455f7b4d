"""Text, JSON, XML, numbers and flags as annotation files state them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from reprlib import Repr

from detr_ft.errors import InputError

# What reading raises on a file that can't be opened, isn't well formed, or is in an unknown encoding.
XML_ERRORS = (ElementTree.ParseError, ValueError, LookupError, OSError)

_YES = ("1", "true", "yes", "y", "t")
_NO = ("0", "false", "no", "n", "f")
_UNSTATED = ("", "-1", "nan", "none", "null", "unknown", "unspecified")  # -1 is Open Images', unspecified VOC's

_LARGEST_ID, _LARGEST_SIDE = 2**63 - 1, 2**31 - 1

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


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; raises one of XML_ERRORS where it isn't well formed or declares a document type."""
    return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type declaration, where entities are declared."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called by the parser before any entity is declared."""
        raise ValueError("a DOCTYPE is not allowed here")


def parse_flag(stated: object, field: str, where: str, problems: list[str]) -> bool:
    """Whether a field says yes; where it is empty or unknown it doesn't. What is neither yes nor no is a problem."""
    if stated is None or stated in (0, 1):
        return bool(stated)
    word = str(stated).strip().lower() if isinstance(stated, (str, int, float)) else "?"
    word = word.removesuffix(".0")
    if word not in (*_YES, *_NO, *_UNSTATED):
        problems.append(f"{where}: {field} must be yes (1, true) or no (0, false), got {shown(stated)}")
    return word in _YES


def parse_numbers(values: object, count: int) -> list[float] | None:
    """The values as `count` floats (NaN and Inf are numbers here); None where they are anything else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None


def parse_number(value: object) -> float | None:
    """The value as a float; None where it is none."""
    values = parse_numbers([value], 1)
    return values[0] if values else None


def parse_side(value: object) -> int | None:
    """A width or height as a file states it, if it is a positive whole number that the schema can hold."""
    return int(value) if isinstance(value, (int, float)) and 0 < value <= _LARGEST_SIDE and value % 1 == 0 else None


def is_id(value: object) -> bool:
    """Whether the schema can hold this value as an image's id."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID


def is_storable(text: str) -> bool:
    """Whether a text can be a file's name and be written as UTF-8: it holds no NUL, and no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def shown(value: object) -> str:
    """A value as a message can hold it: quoted, and cut where it is long or deep."""
    return _SHORT.repr(value)
