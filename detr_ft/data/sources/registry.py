"""The list of sources, and the help, errors and documentation that are generated from it.

Importing this module imports none of the sources, so that help and errors of mistyped paths do not wait for `datasets`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detr_ft.errors import InputError
from detr_ft.utils.files import check_regular

# Images with neither a label file nor a record: without objects, left out, or refused.
UnlabeledPolicy = Literal["background", "skip", "error"]


@dataclass(frozen=True)
class Source:
    """A kind of data, written `name:PATH` or `name:NAME`; `help` is a noun phrase.

    `module` defines the functions of `base.PathSource`, or of `base.NameSource` if no path follows. A `streamed` source
    can only be read row by row, by `open_stream`. `unlabeled` is the default for images with neither a label file nor a
    record.
    """

    name: str
    help: str
    module: str
    follows: Literal["PATH", "NAME"] = "PATH"
    takes_box_format: bool = False
    streamed: bool = False
    unlabeled: UnlabeledPolicy = "skip"

    @property
    def usage(self) -> str:
        """Return the form that a user writes, as in `coco:PATH`."""
        return f"{self.name}:{self.follows}"


# In order of precedence: a path without a name is read by the first source that recognizes it.
SOURCES = (
    Source("saved", "a folder that `save_to_disk` wrote", "detr_ft.data.sources.saved", takes_box_format=True),
    Source("yolo", "a YOLO `data.yaml`", "detr_ft.data.sources.yolo", unlabeled="background"),
    Source("darknet", "Darknet's `obj.data` or `obj.names` (YOLO 1.1)", "detr_ft.data.sources.darknet", unlabeled="background"),
    Source("manifest", "JSON lines of SageMaker, Vertex AI or Azure ML", "detr_ft.data.sources.manifest"),
    Source("folder", "a `metadata.jsonl` beside images", "detr_ft.data.sources.image_folder", takes_box_format=True),
    Source("parquet", "Parquet files", "detr_ft.data.sources.parquet", takes_box_format=True),
    Source("cvat", "`annotations.xml` of CVAT for images 1.1", "detr_ft.data.sources.cvat"),
    Source("supervisely", "a project of Supervisely", "detr_ft.data.sources.supervisely"),
    Source("labelme", "LabelMe's JSON files", "detr_ft.data.sources.labelme"),
    Source("labelstudio", "Label Studio's JSON or JSON-MIN export", "detr_ft.data.sources.labelstudio"),
    Source("via", "JSON or CSV of VGG Image Annotator 2", "detr_ft.data.sources.via"),
    Source("datumaro", "Datumaro's JSON", "detr_ft.data.sources.datumaro"),
    Source("coco", "COCO JSON", "detr_ft.data.sources.coco"),
    Source("voc", "Pascal VOC's `Annotations/*.xml`", "detr_ft.data.sources.voc"),
    Source("kitti", "KITTI's `label_2/*.txt`", "detr_ft.data.sources.kitti"),
    Source("csv", "a CSV whose header names image, class and box", "detr_ft.data.sources.csv_table", takes_box_format=True),
    Source("webdataset", "tar files of WebDataset", "detr_ft.data.sources.webdataset", takes_box_format=True),
    Source("hub", "a data set of the Hub", "detr_ft.data.sources.hub", "NAME", takes_box_format=True),
    Source("generated", "scenes drawn by this package", "detr_ft.data.sources.generated", "NAME"),
    Source("stream", "rows of the Hub or of Parquet files, from Python", "detr_ft.data.sources.stream", "NAME", streamed=True),
)  # fmt: skip
_BY_NAME = {source.name: source for source in SOURCES}


def parse_spec(spec: str, base: Path = Path()) -> tuple[Source | None, str]:
    """Split a specification of data into its source, None for a bare path, and the path or name.

    Raises InputError for an unknown source, unless the whole specification is an existing path from `base`.
    """
    name, colon, rest = spec.partition(":")
    if colon and name in _BY_NAME:
        if not rest:
            raise InputError(f"{spec!r}: nothing follows the colon. Write for example coco:PATH or hub:NAME")
        _check_no_url(spec, rest)
        return _BY_NAME[name], rest
    if not os.path.exists(base / spec):
        _check_no_url(spec, spec)
    if colon and not os.path.exists(base / spec) and len(name) > 1 and name.isidentifier():
        similar = difflib.get_close_matches(name, _BY_NAME, n=1)
        hint = f". Did you mean {similar[0]}:{rest}?" if similar else ""
        raise InputError(f"{spec!r}: unknown source {name!r}, must be one of {', '.join(sorted(_BY_NAME))}{hint}")
    return None, spec


def _check_no_url(spec: str, location: str) -> None:
    """Raise InputError for a URL, with the name of a data set if it is a page of the Hub."""
    if re.match(r"[A-Za-z][\w+.-]*://", location):
        page = re.match(r"https?://(?:www\.)?huggingface\.co/datasets/([^/?#]+/[^/?#]+)", location)
        hint = f"hub:{page[1]}" if page else "hub:NAME"
        raise InputError(
            f"{spec!r}: data are read from files of this machine, or as {hint} from the Hub. Download the files, and give "
            "their path"
        )


def existing_path(text: str, base: Path = Path()) -> Path:
    """Return a path from `base`.

    Raises InputError if it does not exist, with a similar name as a hint, or is a pipe or device.
    """
    try:
        path = base / Path(text).expanduser()
    except RuntimeError as error:  # ~name, for a user without a home directory
        raise InputError(f"{text}: {error}") from error
    if os.path.exists(path):
        try:
            check_regular(path)
        except OSError as error:
            raise InputError(f"{path}: is {error}. Save the data to a file or folder") from error
        return path
    parent = next(folder for folder in path.absolute().parents if os.path.isdir(folder))
    missing = path.absolute().relative_to(parent).parts[0]
    names = [child.name for child in parent.iterdir() if not child.name.startswith(".")]
    similar = difflib.get_close_matches(missing, names, n=1)
    hint = f"Did you mean {parent / similar[0]}?" if similar else f"{parent} has no {missing}."
    hint += "" if Path(text).is_absolute() else " Relative paths of data start at the current folder."
    raise InputError(f"{path}: no such file or folder. {hint} A data set of the Hub is written hub:NAME")


def existing_folder(path: Path) -> Path:
    """Return the path of a folder. Raises InputError if there is none."""
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder of images")
    return path


def check_spec(spec: str, base: Path = Path()) -> None:
    """Raise InputError for an unknown source or a missing path, without importing any source."""
    source, location = parse_spec(spec, base)
    if source is None or source.follows == "PATH":
        existing_path(location, base)


def check_box_format(source: Source, box_format: str) -> None:
    """Raise InputError if the format of a source defines how boxes are written."""
    if not source.takes_box_format:
        allowed = _enumerate((f"{other.name}:" for other in _with_box_format()), "and")
        raise InputError(
            f"box_format {box_format}: not possible for {source.name}: data, whose format defines its boxes. "
            f"Use it with {allowed} data"
        )


def data_help() -> str:
    """Return the command's help for its argument DATA."""
    forms = _enumerate((source.usage for source in _in_command()), "or")
    return f"Read this file or folder, whose format is recognized, or {forms}"


def box_format_help() -> str:
    """Return the command's help for `--box-format`."""
    names = _enumerate((f"{source.name}:" for source in _with_box_format()), "and")
    return f"Read boxes of {names} data as xywh, xyxy or cxcywh, in pixels or with -fractions; default: as recognized"


def sources_table() -> str:
    """Return the sources of the command as a Markdown table."""
    lines = ["| DATA | reads | `--box-format` |", "|---|---|---|"]
    for source in _in_command():
        lines.append(f"| `{source.usage}` | {source.help} | {'yes' if source.takes_box_format else 'no'} |")
    return "\n".join(lines)


def _in_command() -> list[Source]:
    """The sources that can be read as a whole: paths by name, then names."""
    sources = (source for source in SOURCES if not source.streamed)
    return sorted(sources, key=lambda source: (source.follows != "PATH", source.name))


def _with_box_format() -> list[Source]:
    return [source for source in _in_command() if source.takes_box_format]


def _enumerate(words: Iterable[str], conjunction: str) -> str:
    """Join words for prose: `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} {conjunction} {last}" if first else last
