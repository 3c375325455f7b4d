"""Reads COCO JSON: one file, a folder for each split (Roboflow), or `annotations/instances_*.json` (official)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.schema import SPLITS
from detr_ft.data.sources.coco.parser import Table
from detr_ft.data.sources.record import refuse, split_folders, split_of, split_of_folder, to_dataset
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def read_coco(path: Path) -> DatasetDict:
    """The data set of a COCO file or folder. Categories that no split uses are left out, and said so.

    Category ids may have gaps; classes are numbered in the order of their ids, over all splits alike. An object without
    a bbox gets the box around its segmentation. Images that aren't where their names say are searched for below the file.
    """
    files = _files(path)
    if not files:
        raise InputError(
            f"{path}: no COCO file found; expected <split>/_annotations.coco.json, annotations/instances_<split>.json "
            "or one .json file named outright"
        )
    tables = {split: Table(file) for split, file in files.items()}
    problems = [problem for table in tables.values() for problem in table.read()]
    splits = {split: list(table.records.values()) for split, table in tables.items()}
    refuse(problems, splits)
    return to_dataset(splits, _used_names(tables.values(), path), path)


def coco_categories(path: Path) -> dict[int, str]:
    """The names of the categories of a COCO file or folder that `read_coco` has read, by their ids."""
    tables = [Table(file) for file in _files(path).values()]
    for table in tables:
        table.read()
    return {number: name for table in tables for number, name in table.categories.items()}


def _files(path: Path) -> dict[str, Path]:
    one = split_of(path.stem) or split_of_folder(path.parent) or "train"
    return {one: path} if path.is_file() else coco_files(path)


def coco_files(folder: Path) -> dict[str, Path]:
    """The COCO file of each split below a folder, in the layouts that are known; empty if there is none."""
    found: dict[str, Path] = {}
    for split, child in split_folders(folder):
        _take(
            found,
            split,
            [f for f in sorted(child.glob("*.json")) if f.name.endswith("coco.json") or f.stem == "annotations"],
        )
    if found:
        return found
    for place in (folder / "annotations", folder):
        files = sorted(place.glob("*.json"))
        instances = [f for f in files if f.name.startswith("instances")] or files
        for split in SPLITS:
            _take(found, split, [f for f in instances if split_of(f.stem) == split])
        if not found and len(instances) == 1:
            found["train"] = instances[0]
        if found:
            return found
    return found


def _take(found: dict[str, Path], split: str, files: list[Path]) -> None:
    files = [*([found[split]] if split in found else []), *files]
    if len(files) > 1:
        raise InputError(
            f"several COCO files for split {split}: {', '.join(map(str, files))}; name one of them outright"
        )
    if files:
        found[split] = files[0]


def _used_names(tables: Iterable[Table], path: Path) -> list[str]:
    tables = list(tables)
    names = dict.fromkeys(name for table in tables for _, name in sorted(table.categories.items()))
    used = {name for table in tables for record in table.records.values() for name in record.names if name}
    unused = [name for name in names if name not in used]
    if not used:
        return list(names)
    if unused:
        log.info("%s: categories that no annotation uses are left out: %s", path, ", ".join(unused))
    return [name for name in names if name in used]
