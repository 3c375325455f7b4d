"""The sources of data, one line each, and what is derived from the list: help, errors, documentation.

Importing this loads none of the sources: the command shows its help, and reports a mistyped path, without `datasets`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detr_ft.errors import InputError


@dataclass(frozen=True)
class Source:
    """One kind of data: its name, what it reads, what follows `name:`, and the module with its `recognizes` and `read`.

    The functions are those of `base.PathSource`, or of `base.NameSource` where no path follows. A `streamed` source is read
    row by row, by `open_stream` alone.
    """

    name: str
    help: str
    module: str
    follows: Literal["PATH", "NAME"] = "PATH"
    takes_box_format: bool = False
    streamed: bool = False

    @property
    def usage(self) -> str:
        """How a user writes it, as in `coco:PATH`."""
        return f"{self.name}:{self.follows}"


# A path without a name is read by the first of these that recognizes it.
SOURCES = (
    Source("saved", "a folder that `save_to_disk` wrote", "detr_ft.data.sources.saved", takes_box_format=True),
    Source("yolo", "a YOLO `data.yaml`", "detr_ft.data.sources.yolo"),
    Source("folder", "a `metadata.jsonl` beside images", "detr_ft.data.sources.image_folder", takes_box_format=True),
    Source("parquet", "Parquet files", "detr_ft.data.sources.parquet", takes_box_format=True),
    Source("cvat", "`annotations.xml` of CVAT for images 1.1", "detr_ft.data.sources.cvat"),
    Source("labelme", "LabelMe's JSON files", "detr_ft.data.sources.labelme"),
    Source("labelstudio", "Label Studio's JSON or JSON-MIN export", "detr_ft.data.sources.labelstudio"),
    Source("coco", "COCO JSON", "detr_ft.data.sources.coco"),
    Source("voc", "Pascal VOC's `Annotations/*.xml`", "detr_ft.data.sources.voc"),
    Source("csv", "a CSV whose header names image, class and box", "detr_ft.data.sources.csv_table", takes_box_format=True),
    Source("hub", "a data set of the Hub", "detr_ft.data.sources.hub", "NAME", takes_box_format=True),
    Source("generated", "scenes drawn by this package", "detr_ft.data.sources.generated", "NAME"),
    Source("stream", "rows of the Hub or of Parquet files, from Python", "detr_ft.data.sources.stream", "NAME", streamed=True),
)  # fmt: skip
_BY_NAME = {source.name: source for source in SOURCES}


def parse_spec(spec: str, base: Path = Path()) -> tuple[Source | None, str]:
    """The source that a specification of data names, and what follows its colon; for a bare path None and the path.

    Raises InputError for a name that no source has, with one that is alike, unless the whole is a path from `base`.
    """
    name, colon, rest = spec.partition(":")
    if colon and name in _BY_NAME:
        if not rest:
            raise InputError(f"{spec!r}: nothing follows the colon; write for example coco:PATH or hub:NAME")
        return _BY_NAME[name], rest
    if colon and not os.path.exists(base / spec) and len(name) > 1 and name.isidentifier():
        near = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f"; did you mean {near[0]}:{rest}?" if near else ""
        raise InputError(f"{spec!r}: unknown kind of data {name!r}; known are {', '.join(sorted(_BY_NAME))}{hint}")
    return None, spec


def existing_path(text: str, base: Path = Path()) -> Path:
    """The path that a user names, from `base`. Raises InputError where nothing is there, with a name that is alike."""
    try:
        path = base / Path(text).expanduser()
    except RuntimeError as error:  # ~someone, who has no home here
        raise InputError(f"{text}: {error}") from error
    if os.path.exists(path):
        return path
    parent = next(above for above in path.absolute().parents if os.path.isdir(above))
    missing = path.absolute().relative_to(parent).parts[0]
    near = difflib.get_close_matches(missing, [child.name for child in parent.iterdir()], n=1)
    hint = f"did you mean {parent / near[0]}?" if near else f"{parent} has no {missing}"
    raise InputError(f"{path}: no such file or folder; {hint} (a data set of the Hub is written hub:NAME)")


def check_box_format(source: Source, box_format: str) -> None:
    """Raise InputError where the format of boxes can't be chosen for a source."""
    if not source.takes_box_format:
        raise InputError(
            f"box_format: {box_format} can't be chosen for {source.name}: data, whose own format says how boxes are "
            f"written; it is for {_listed(f'{one.name}:' for one in _with_box_format())}"
        )


def unrecognized(path: Path) -> InputError:
    """The error for a file or folder that no source recognizes."""
    expected = _listed((f"{one.help} ({one.usage})" for one in _in_command() if one.follows == "PATH"), "or")
    return InputError(
        f"{path}: its format isn't recognised; expected {expected}. If it is one of these, name it outright"
    )


def data_help() -> str:
    """The command's help on its argument DATA."""
    return f"A file or folder, whose format is recognized, or {_listed((one.usage for one in _in_command()), 'or')}"


def box_format_help() -> str:
    """The command's help on `--box-format`."""
    names = _listed((f"{one.name}:" for one in _with_box_format()), "and")
    return (
        f"Read the boxes of {names} data as xywh, xyxy or cxcywh, in pixels, or with -fractions; "
        "default: the format that is recognized"
    )


def sources_table() -> str:
    """The sources that the command reads as a Markdown table."""
    lines = ["| DATA | reads | `--box-format` |", "|---|---|---|"]
    for source in _in_command():
        lines.append(f"| `{source.usage}` | {source.help} | {'yes' if source.takes_box_format else ''} |")
    return "\n".join(lines)


def _in_command() -> list[Source]:
    return sorted((one for one in SOURCES if not one.streamed), key=lambda one: (one.follows != "PATH", one.name))


def _with_box_format() -> list[Source]:
    return [one for one in _in_command() if one.takes_box_format]


def _listed(words: Iterable[str], conjunction: str = "and") -> str:
    """Words as prose lists them: `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last
