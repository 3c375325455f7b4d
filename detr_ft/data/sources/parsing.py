"""Text, JSON, XML, numbers and flags of annotation files."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from reprlib import Repr

from detr_ft.errors import InputError
from detr_ft.utils.files import read_regular

# Raised for a file that can't be opened, is not well formed, or has an unknown encoding.
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DECLARED_ENCODING = re.compile(
    rb"""(?:\xef\xbb\xbf)?\s*<\?xml[^>]*\bencoding\s*=\s*["'](?P<name>[\w.-]+)["'][^>]*\?>"""
)
XML_ERRORS = (ElementTree.ParseError, ValueError, LookupError, OSError)

_YES = ("1", "true", "yes", "y", "t")
_NO = ("0", "false", "no", "n", "f")
_UNSTATED = ("", "-1", "nan", "none", "null", "unknown", "unspecified")  # Open Images has -1, VOC unspecified

_MAX_ID, _MAX_SIDE_PX = 2**63 - 1, 2**31 - 1  # the largest int64 and int32, the types of the schema

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark. Raises InputError."""
    try:
        return decode_text(read_regular(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file doesn't exist") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: can't be read as UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8: in a spreadsheet as "
            "'CSV UTF-8', or with iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error})") from error


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark, with ends of lines as "\\n"."""
    return content.decode(encoding_of(content), errors).replace("\r\n", "\n").replace("\r", "\n")


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text file by its first bytes: UTF-16 with a byte order mark, else UTF-8."""
    return "utf-16" if head[:2] in _UTF_16_MARKS else "utf-8-sig"


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, split at ends of lines only, unlike `str.splitlines`."""
    return read_text(path).removesuffix("\n").split("\n")


def parse_json(text: str) -> object:
    """Parse JSON. Raises ValueError with the reason."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("not valid JSON of a data set (nested too deeply)") from error
    except ValueError as error:
        raise ValueError("not valid JSON of a data set (a number of thousands of digits)") from error


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file, in the encoding that it declares.

    Raises one of XML_ERRORS, also for a document type declaration.
    """
    content = read_regular(path)
    declared = _DECLARED_ENCODING.match(content)
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    if declared is None:
        return ElementTree.fromstring(content, parser)
    # The parser knows few encodings of several bytes, such as GB2312; Python knows more.
    text = content[declared.end() :].decode(declared["name"].decode("ascii"))
    return ElementTree.fromstring(text, parser)


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Rejects document type declarations: their entities can expand without bound or include other files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called by the parser before any entity is declared."""
        raise ValueError("a DOCTYPE is not allowed here")


def parse_flag(stated: object, field: str, where: str, problems: list[str]) -> bool:
    """Return True for yes, False for no, empty and unknown. Any other value is added to `problems`."""
    if stated is None or stated in (0, 1):
        return bool(stated)
    word = str(stated).strip().lower() if isinstance(stated, (str, int, float)) else "?"
    word = word.removesuffix(".0")
    if word not in (*_YES, *_NO, *_UNSTATED):
        problems.append(f"{where}: {field} must be yes (1, true) or no (0, false), got {shown(stated)}")
    return word in _YES


def parse_numbers(values: object, count: int) -> list[float] | None:
    """Return a list of `count` values as floats (also NaN and Inf), None for anything else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None


def parse_number(value: object) -> float | None:
    """Return a value as a float (also NaN and Inf), None for anything else."""
    numbers = parse_numbers([value], 1)
    return numbers[0] if numbers else None


def parse_rotation(value: object) -> float | None:
    """Return an angle as a float, 0 for one that is not stated, None for anything else."""
    return 0.0 if value is None or value == "" else parse_number(value)


def parse_side(value: object) -> int | None:
    """Return a width or height in pixels; None for no positive whole number that fits the schema."""
    return int(value) if isinstance(value, (int, float)) and 0 < value <= _MAX_SIDE_PX and value % 1 == 0 else None


def is_id(value: object) -> bool:
    """Return whether a value is a whole number that fits the schema as an id."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_ID


def is_storable(text: str) -> bool:
    """Return whether a text can be a file name and UTF-8: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def shown(value: object) -> str:
    """Return a value for a message: quoted, and cut if it is long or deeply nested."""
    return _SHORT.repr(value)
