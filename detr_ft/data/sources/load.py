"""Read a data set from any source into the schema."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import cast

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import NameSource, PathSource, ReadOptions, SourceData
from detr_ft.data.sources.coco import read_categories
from detr_ft.data.sources.other_formats import with_other_formats
from detr_ft.data.sources.registry import (
    SOURCES,
    Source,
    UnlabeledPolicy,
    check_box_format,
    existing_folder,
    existing_path,
    parse_spec,
)
from detr_ft.data.sources.unlabeled import apply_policy
from detr_ft.data.sources.unrecognized import unrecognized
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def load_data(
    spec: str | os.PathLike[str],
    base: Path = Path(),
    box_format: str | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    unlabeled: UnlabeledPolicy | None = None,
) -> DatasetDict:
    """Read the splits (among train, validation, test) of a data set in the schema.

    `spec` is `NAME:PATH` with the name of a source (`coco:`, `voc:`, `yolo:`, ...), `hub:OWNER/NAME`, `generated:NAME`,
    or a path, whose format is recognized by its contents. Boxes are in pixels of the upright image. Relative paths
    start at `base`. `box_format` is the format in which tables, metadata files and the Hub's data write boxes (`xyxy`,
    `cxcywh-fractions`, ...: see `BoxFormat`); by default it is recognized and logged. `images` is the folder of the images
    if they are not near the annotations. `unlabeled` decides on images with neither a label file nor a record: `background`
    (no objects), `skip`, or `error`; the default is `background` for YOLO, whose convention it is, and `skip` for others.
    Defective boxes are read as they are; the doctor reports them. Raises InputError; DefectiveDataError, which contains
    what could be read, if an object could not.
    """
    return load_source_data(os.fspath(spec), base, box_format, images=images, unlabeled=unlabeled).checked()


def load_source_data(
    spec: str,
    base: Path = Path(),
    box_format: str | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    unlabeled: UnlabeledPolicy | None = None,
) -> SourceData:
    """Read a data set as `load_data` does, with the problems of its files."""
    format = None if box_format is None else BoxFormat.parse(box_format)
    folder = None if images is None else existing_folder(base / images)
    options = ReadOptions(format, folder)
    source, location = parse_spec(spec, base)
    if source is None:
        path = existing_path(location, base)
        source = _recognize(path)
        log.info("%s: recognized as %s:%s", path, source.name, spec)
    if format is not None:
        check_box_format(source, format.name)
    if source.follows == "NAME":
        data = cast(NameSource, import_module(source.module)).read(location, options)
    else:
        path = existing_path(location, base)
        data = with_other_formats(_path_source(source).read(path, options), path, source.name, unlabeled)
    return apply_policy(data, unlabeled, source.unlabeled)


def read_category_ids(spec: str, base: Path = Path()) -> dict[int, str]:
    """Return the class name of each category id of a COCO data set; empty for other data."""
    source, location = parse_spec(spec, base)
    if source is None:
        source = _recognize(existing_path(location, base))
    return read_categories(existing_path(location, base)) if source.name == "coco" else {}


def _recognize(path: Path) -> Source:
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: must be a file or a folder")
    source = _recognized(path)
    if source is None:
        raise unrecognized(path, _recognized)
    return source


def _recognized(path: Path) -> Source | None:
    sources = (source for source in SOURCES if source.follows == "PATH" and _path_source(source).recognizes(path))
    return next(sources, None)


def _path_source(source: Source) -> PathSource:
    return cast(PathSource, import_module(source.module))
