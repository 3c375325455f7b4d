"""Reading a data set, wherever it comes from, into the one schema."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.sources.coco import coco_files, read_coco
from detr_ft.data.sources.cvat import read_cvat
from detr_ft.data.sources.folder import metadata_files, read_folder
from detr_ft.data.sources.hub import read_hub
from detr_ft.data.sources.json_kind import json_kind
from detr_ft.data.sources.labelme import is_labelme, read_labelme
from detr_ft.data.sources.labelstudio import read_labelstudio
from detr_ft.data.sources.voc import read_voc, voc_files
from detr_ft.data.sources.yolo import read_yolo, yolo_file
from detr_ft.errors import UserError

__all__ = ["load_data"]

_READERS = {
    "coco": read_coco,
    "cvat": read_cvat,
    "folder": read_folder,
    "labelme": read_labelme,
    "labelstudio": read_labelstudio,
    "voc": read_voc,
    "yolo": read_yolo,
}
_KINDS = tuple(sorted((*_READERS, "generated", "hub")))

log = logging.getLogger(__name__)


def load_data(spec: str, base: Path = Path()) -> DatasetDict:
    """The splits (among train, validation, test) of a data set, each in the schema: boxes in pixels of the upright image.

    `spec` is `coco:PATH`, `voc:FOLDER`, `yolo:PATH`, `folder:FOLDER`, `labelme:PATH`, `labelstudio:PATH`, `cvat:PATH`,
    `hub:NAME`, `generated:NAME`, or a bare path, whose format is recognised by what it holds. Relative paths start at `base`. Defective boxes stay; the doctor reports them.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind in _KINDS and not rest:
        raise UserError(f"{spec!r}: nothing follows the colon; write for example coco:PATH or hub:NAME")
    if colon and kind == "generated":
        from detr_ft.data.generated import generate

        return generate(rest)
    if colon and kind == "hub":
        return read_hub(rest)
    if colon and kind in _READERS:
        return _READERS[kind](_existing(rest, base))
    if colon and not (base / spec).exists() and len(kind) > 1 and kind.isidentifier():
        near = difflib.get_close_matches(kind, _KINDS, n=1)
        hint = f"; did you mean {near[0]}:{rest}?" if near else ""
        raise UserError(f"{spec!r}: unknown kind of data {kind!r}; known are {', '.join(_KINDS)}{hint}")
    path = _existing(spec, base)
    kind = _recognise(path)
    log.info("%s looks like %s: reading it as %s:%s", path, kind.upper(), kind, spec)
    return _READERS[kind](path)


def _existing(text: str, base: Path) -> Path:
    path = base / Path(text).expanduser()
    if path.exists():
        return path
    parent = next(above for above in path.absolute().parents if above.is_dir())
    missing = path.absolute().relative_to(parent).parts[0]
    near = difflib.get_close_matches(missing, [child.name for child in parent.iterdir()], n=1)
    hint = f"did you mean {parent / near[0]}?" if near else f"{parent} has no {missing}"
    raise UserError(f"{path}: no such file or folder; {hint} (a data set of the Hub is written hub:NAME)")


def _recognise(path: Path) -> str:
    """Which reader a bare path is for, by what it holds."""
    if path.is_file():
        by_suffix = {".xml": "cvat", ".yaml": "yolo", ".yml": "yolo"}
        if path.suffix.lower() == ".json":
            return json_kind(path)
        if path.suffix.lower() in by_suffix:
            return by_suffix[path.suffix.lower()]
    elif not path.is_dir():
        raise UserError(f"{path}: neither a file nor a folder")
    elif yolo_file(path):
        return "yolo"
    elif metadata_files(path):
        return "folder"
    elif (path / "annotations.xml").is_file():
        return "cvat"
    elif is_labelme(path):
        return "labelme"
    elif coco_files(path):
        return "coco"
    elif voc_files(path, []):
        return "voc"
    raise UserError(
        f"{path}: its format isn't recognised; expected a COCO .json, a YOLO data.yaml, VOC's Annotations/, "
        "a metadata.jsonl, or what LabelMe, Label Studio or CVAT export. "
        "If it is one of these, name it outright, for example coco:PATH"
    )
