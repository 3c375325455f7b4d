"""Read a data set from any source into the one schema."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import cast

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import NameSource, PathSource, SourceData
from detr_ft.data.sources.coco import read_categories
from detr_ft.data.sources.registry import SOURCES, Source, check_box_format, existing_path, parse_spec, unrecognized
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def load_data(spec: str, base: Path = Path(), box_format: str | None = None) -> DatasetDict:
    """The splits (among train, validation, test) of a data set, each in the schema: boxes in pixels of the upright image.

    `spec` is `coco:PATH`, `voc:FOLDER`, `yolo:PATH`, `labelme:PATH`, `labelstudio:PATH`, `cvat:PATH`, `folder:FOLDER`,
    `csv:PATH`, `parquet:PATH`, `saved:FOLDER`, `hub:NAME`, `generated:NAME`, or a bare path, whose format is recognised by
    what it holds. Relative paths start at `base`. Defective boxes stay; the doctor reports them. How a table, a folder's
    metadata or a data set of the Hub writes its boxes is recognised and said on the log, unless `box_format` tells it
    (`xyxy`, `cxcywh-fractions` ...: see `BoxFormat`). Raises InputError; where it is only for classes that the data set
    doesn't have, UnknownClassError, which holds all of the rest.
    """
    return read_data(spec, base, box_format).splits


def read_data(spec: str, base: Path = Path(), box_format: str | None = None) -> SourceData:
    """As `load_data`, with what the files state besides."""
    format = None if box_format is None else BoxFormat.parse(box_format)
    source, location = parse_spec(spec, base)
    if source is None:
        path = existing_path(location, base)
        source = _recognize(path)
        log.info("%s looks like %s: reading it as %s:%s", path, source.name.upper(), source.name, spec)
    if format is not None:
        check_box_format(source, format.name)
    if source.follows == "NAME":
        return cast(NameSource, import_module(source.module)).read(location, format)
    return _module(source).read(existing_path(location, base), format)


def category_numbers(spec: str, base: Path = Path()) -> dict[int, str]:
    """Under which numbers a COCO data set has its classes, for results in its format; empty for every other kind of data."""
    source, location = parse_spec(spec, base)
    if source is None:
        source = _recognize(existing_path(location, base))
    return read_categories(existing_path(location, base)) if source.name == "coco" else {}


def _recognize(path: Path) -> Source:
    """The first source that recognizes a path."""
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: neither a file nor a folder")
    readers = (source for source in SOURCES if source.follows == "PATH")
    source = next((source for source in readers if _module(source).recognizes(path)), None)
    if source is None:
        raise unrecognized(path)
    return source


def _module(source: Source) -> PathSource:
    return cast(PathSource, import_module(source.module))
