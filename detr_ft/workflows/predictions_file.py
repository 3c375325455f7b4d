"""Detections in COCO's results format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.schema import class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.detections import coco_results
from detr_ft.run_directory import PREDICTIONS, RunDirectory
from detr_ft.structures import Detections
from detr_ft.utils.files import writing

_MAX_FAULTS_SHOWN = 20
_MAX_COORDINATE_PX = 1e9
_MAX_CATEGORIES_SHOWN = 10


def save_predictions(
    folder: RunDirectory, split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]
) -> None:
    """Write `predictions.json` into a run, with the name of each class as `category`.

    `numbers` are the data's own category ids; if it has none, an id is the index of the class.
    """
    folder.write_text(PREDICTIONS, _as_text(split, detections, numbers))


def write_predictions(file: Path, split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]) -> None:
    """Write the same into a file of any name. Raises InputError if it can't be written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_as_text(split, detections, numbers), encoding="utf-8")


def _as_text(split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]) -> str:
    names = class_names(split)
    name_of = numbers or dict(enumerate(names))
    # Categories of the same name are one class; the first id stands for it.
    number_of = {name: number for number, name in sorted(name_of.items(), reverse=True)}
    rows = coco_results(detections, split["image_id"][:], [number_of[name] for name in names])
    text = ",\n".join(json.dumps(row | {"category": name_of[row["category_id"]]}) for row in rows)
    return f"[{text}]\n"


def read_predictions(file: Path, split: Dataset, numbers: Mapping[int, str]) -> list[Detections]:
    """Return the detections of each row of a split from a file in COCO's results format.

    Results are matched with images by `image_id`. A class is identified by its name if results have a `category`, else
    by its `category_id` among the data's own `numbers`, or by its index if it has none. Raises InputError with
    everything that doesn't fit: malformed rows, and images and classes that the data don't have.
    """
    names = class_names(split)
    index_of = {name: index for index, name in enumerate(names)}
    name_of = numbers or dict(enumerate(names))
    image_of = {image_id: row for row, image_id in enumerate(split["image_id"][:])}
    results: list[list[tuple[list[float], float, int]]] = [[] for _ in image_of]
    faults: dict[str, str] = {}  # the first of each kind
    for number, row in enumerate(_rows(file), start=1):
        fault = _fault(row, image_of, {*names, *name_of.values()}, name_of)
        if fault:
            faults.setdefault(fault, f"{file}: result {number}: {fault}")
            continue
        name = row["category"] if "category" in row else name_of[row["category_id"]]
        if name in index_of:  # else a category without objects in the data
            results[image_of[row["image_id"]]].append((row["bbox"], row["score"], index_of[name]))
    if faults:
        hidden = len(faults) - _MAX_FAULTS_SHOWN
        more = [f"{file}: and {hidden:,} more"] if hidden > 0 else []
        raise InputError([*list(faults.values())[:_MAX_FAULTS_SHOWN], *more])
    return [_detections(rows) for rows in results]


def _rows(file: Path) -> list[Any]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{file}: must be COCO results, a list of {{image_id, category_id, bbox, score}}")
    return rows


def _fault(row: Any, image_of: Mapping[Any, int], names: Set[str], name_of: Mapping[int, str]) -> str:
    """Return what is wrong with a result, an empty text if nothing is."""
    if not isinstance(row, dict) or not {"image_id", "bbox", "score"} <= row.keys():
        return "must have image_id, category_id, bbox and score"
    if not isinstance(row["image_id"], int) or row["image_id"] not in image_of:
        return f"the data have no image with the id {row['image_id']!r}; ids are the whole numbers of the annotations"
    if not _are_numbers(row["bbox"], 4):
        return f"bbox must be [x_min, y_min, width, height] in pixels, got {row['bbox']}"
    if min(row["bbox"][2:]) < 0:
        return f"bbox must be [x_min, y_min, width, height], and a width or height is negative: {row['bbox']}"
    if not _are_numbers([row["score"]], 1) or not 0 <= row["score"] <= 1:
        return f"score must be a number from 0 to 1, got {row['score']!r}"
    if "category" in row:
        name = row["category"]
        return "" if isinstance(name, str) and name in names else f"the data have no class {name}"
    number = row.get("category_id")
    if not isinstance(number, int) or number not in name_of:
        first = ", ".join(f"{known} {name}" for known, name in sorted(name_of.items())[:_MAX_CATEGORIES_SHOWN])
        more = " ..." if len(name_of) > _MAX_CATEGORIES_SHOWN else ""
        return f"category_id must be one of the data's ({first}{more}), got {number}"
    return ""


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        # False for NaN, too
        and all(isinstance(value, (int, float)) and abs(value) < _MAX_COORDINATE_PX for value in values)
    )


def _detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    xywh: Tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    score = torch.tensor(scores, dtype=torch.float64)
    order = score.argsort(descending=True, stable=True)
    return Detections(xywh_to_xyxy(xywh)[order], score[order], torch.tensor(labels, dtype=torch.long)[order])
