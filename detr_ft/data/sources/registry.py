"""Reading a data set, wherever it comes from, into the one schema."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.coco.reader import coco_categories, coco_files, read_coco
from detr_ft.data.sources.csv.reader import TABLE_SUFFIXES, read_table, table_files
from detr_ft.data.sources.cvat import read_cvat
from detr_ft.data.sources.json_format import json_kind
from detr_ft.data.sources.labelme import is_labelme, read_labelme
from detr_ft.data.sources.labelstudio.reader import read_labelstudio
from detr_ft.data.sources.tables.folder import metadata_files, read_folder
from detr_ft.data.sources.tables.hub import read_hub
from detr_ft.data.sources.tables.parquet import is_saved, parquet_files, read_parquet, read_saved
from detr_ft.data.sources.tables.stream import open_stream
from detr_ft.data.sources.voc import read_voc, voc_files
from detr_ft.data.sources.yolo.reader import read_yolo, yolo_file
from detr_ft.errors import InputError

__all__ = ["category_numbers", "load_data", "open_stream"]

# The formats of tools say how boxes are written; tables leave it to whoever wrote them.
_FIXED = {
    "coco": read_coco,
    "cvat": read_cvat,
    "labelme": read_labelme,
    "labelstudio": read_labelstudio,
    "voc": read_voc,
    "yolo": read_yolo,
}
_OPEN = {"csv": read_table, "folder": read_folder, "parquet": read_parquet, "saved": read_saved}
_KINDS = tuple(sorted([*_FIXED, *_OPEN, "generated", "hub", "stream"]))

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
    kind, colon, rest = spec.partition(":")
    format = None if box_format is None else BoxFormat.parse(box_format)
    if colon and kind in _KINDS and not rest:
        raise InputError(f"{spec!r}: nothing follows the colon; write for example coco:PATH or hub:NAME")
    if colon and kind == "generated":
        from detr_ft.data.generated.generate import generate

        _refuse_format(kind, format)
        return generate(rest)
    if colon and kind == "hub":
        return read_hub(rest, format)
    if colon and kind == "stream":
        raise InputError(
            f"{spec}: a stream can't be trained on or examined yet: from Python, detr_ft.data.open_stream gives its rows; "
            f"to have the data set whole, write hub:{rest} or its path"
        )
    if colon and kind in (*_FIXED, *_OPEN):
        return _read(kind, _existing(rest, base), format)
    if colon and not os.path.exists(base / spec) and len(kind) > 1 and kind.isidentifier():
        near = difflib.get_close_matches(kind, _KINDS, n=1)
        hint = f"; did you mean {near[0]}:{rest}?" if near else ""
        raise InputError(f"{spec!r}: unknown kind of data {kind!r}; known are {', '.join(_KINDS)}{hint}")
    path = _existing(spec, base)
    kind = _recognise(path)
    log.info("%s looks like %s: reading it as %s:%s", path, kind.upper(), kind, spec)
    return _read(kind, path, format)


def category_numbers(spec: str, base: Path = Path()) -> dict[int, str]:
    """Under which numbers a COCO data set has its classes, for results in its format; empty for every other kind of data."""
    kind, colon, rest = spec.partition(":")
    if colon and kind in _KINDS:
        return coco_categories(_existing(rest, base)) if kind == "coco" else {}
    path = _existing(spec, base)
    return coco_categories(path) if _recognise(path) == "coco" else {}


def _read(kind: str, path: Path, format: BoxFormat | None) -> DatasetDict:
    if kind in _OPEN:
        return _OPEN[kind](path, format)
    _refuse_format(kind, format)
    return _FIXED[kind](path)


def _refuse_format(kind: str, format: BoxFormat | None) -> None:
    if format is not None:
        raise InputError(
            f"box_format: {format.name} can't be chosen for {kind}: data, whose own format says how boxes are written; "
            f"it is for {', '.join(f'{one}:' for one in sorted([*_OPEN, 'hub']))}"
        )


def _existing(text: str, base: Path) -> Path:
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


def _recognise(path: Path) -> str:
    """Which reader a bare path is for, by what it holds."""
    if path.is_file():
        by_suffix = {".jsonl": "folder", ".parquet": "parquet", ".xml": "cvat", ".yaml": "yolo", ".yml": "yolo"}
        by_suffix |= dict.fromkeys(TABLE_SUFFIXES, "csv")
        if path.suffix.lower() == ".json":
            return json_kind(path)
        if path.suffix.lower() in by_suffix:
            return by_suffix[path.suffix.lower()]
    elif not path.is_dir():
        raise InputError(f"{path}: neither a file nor a folder")
    elif is_saved(path):
        return "saved"
    elif yolo_file(path):
        return "yolo"
    elif metadata_files(path):
        return "folder"
    elif parquet_files(path):  # before COCO's: `datasets` writes .json files beside its own
        return "parquet"
    elif (path / "annotations.xml").is_file():
        return "cvat"
    elif is_labelme(path):
        return "labelme"
    elif files := coco_files(path):
        return json_kind(next(iter(files.values())))
    elif voc_files(path, []):
        return "voc"
    elif table_files(path):
        return "csv"
    raise InputError(
        f"{path}: its format isn't recognised; expected a COCO .json, a YOLO data.yaml, VOC's Annotations/, a metadata.jsonl, "
        "Parquet files, a folder of save_to_disk, what LabelMe, Label Studio or CVAT export, or a .csv whose first line "
        "names image, class and box. "
        "If it is one of these, name it outright, for example coco:PATH"
    )
