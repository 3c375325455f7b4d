"""What an evaluation leaves beside a model: its detections in COCO's results format, and the thresholds in its config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data import class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.coco_results import coco_results
from detr_ft.run_directory import PREDICTIONS, RunDirectory
from detr_ft.structures import Detections
from detr_ft.utils.files import writing

_TOLD = 20  # faults of a file
_LARGEST = 1e9  # pixels


def save_predictions(
    folder: RunDirectory, split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]
) -> None:
    """Write COCO results under the images' own ids, with the name of each `category` beside its number.

    `numbers` are the data's own (`category_numbers`); where it has none, a class goes by its index.
    """
    folder.write_text(PREDICTIONS, _as_text(split, detections, numbers))


def write_predictions(file: Path, split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]) -> None:
    """The same into a file of any name; raises InputError where it can't be written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_as_text(split, detections, numbers), encoding="utf-8")


def _as_text(split: Dataset, detections: Sequence[Detections], numbers: Mapping[int, str]) -> str:
    names = class_names(split)
    name_of = numbers or dict(enumerate(names))
    # Of categories that share a name, and so are one class, the first.
    number_of = {name: number for number, name in sorted(name_of.items(), reverse=True)}
    rows = coco_results(detections, split["image_id"][:], [number_of[name] for name in names])
    text = ",\n".join(json.dumps(row | {"category": name_of[row["category_id"]]}) for row in rows)
    return f"[{text}]\n"


def read_predictions(file: Path, split: Dataset, numbers: Mapping[int, str]) -> list[Detections]:
    """The detections of each row of a split, from a file in COCO's results format, by the images' ids.

    A class is known by its name, where results have a `category`; else by its `category_id`, which is one of the data's
    own `numbers`, or where it has none the index of the class. Raises InputError with everything that doesn't fit: rows that
    are no results, images and classes that the data lack.
    """
    names = class_names(split)
    known = {name: index for index, name in enumerate(names)}
    name_of = numbers or dict(enumerate(names))
    image_of = {image_id: row for row, image_id in enumerate(split["image_id"][:])}
    found: list[list[tuple[list[float], float, int]]] = [[] for _ in image_of]
    faults: dict[str, str] = {}  # the first of each kind
    for number, row in enumerate(_rows(file), start=1):
        fault = _fault(row, image_of, {*names, *name_of.values()}, name_of)
        if fault:
            faults.setdefault(fault, f"{file}: result {number}: {fault}")
            continue
        name = row["category"] if "category" in row else name_of[row["category_id"]]
        if name in known:  # else a category that no object has, so that nothing is to be found of it
            found[image_of[row["image_id"]]].append((row["bbox"], row["score"], known[name]))
    if faults:
        more = [f"{file}: and {len(faults) - _TOLD:,} more"] if len(faults) > _TOLD else []
        raise InputError([*list(faults.values())[:_TOLD], *more])
    return [_detections(one) for one in found]


def keep_thresholds(folder: RunDirectory, told: Assessment) -> None:
    """Write the best thresholds of the classes into the `detr_ft` block of the model's config."""
    config: dict[str, Any] = json.loads((folder.path / "config.json").read_text(encoding="utf-8"))
    config.setdefault("detr_ft", {})["thresholds"] = {
        name: round(one.threshold, 4) for name, one in told.thresholds.items() if one.f1 > 0
    }
    folder.write_text("config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def _rows(file: Path) -> list[Any]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise InputError(f"{file}: COCO's results are a list of {{image_id, category_id, bbox, score}}")
    return rows


def _fault(row: Any, image_of: Mapping[Any, int], known: Set[str], name_of: Mapping[int, str]) -> str:
    if not isinstance(row, dict) or not {"image_id", "bbox", "score"} <= row.keys():
        return "a result has image_id, category_id, bbox and score"
    if not isinstance(row["image_id"], int) or row["image_id"] not in image_of:
        return (
            f"the data have no image with the id {row['image_id']!r}; ids are whole numbers, those of the annotations"
        )
    if not _are_numbers(row["bbox"], 4):
        return f"bbox is four numbers, x_min, y_min, width and height in pixels, and not {row['bbox']}"
    if min(row["bbox"][2:]) < 0:
        return f"bbox is x_min, y_min, width and height, and a width or height is negative: {row['bbox']}"
    if not _are_numbers([row["score"]], 1) or not 0 <= row["score"] <= 1:
        return f"score is a number from 0 to 1, and not {row['score']!r}"
    if "category" in row:
        return (
            ""
            if isinstance(row["category"], str) and row["category"] in known
            else f"the data have no class {row['category']}"
        )
    number = row.get("category_id")
    if not isinstance(number, int) or number not in name_of:
        there = ", ".join(f"{one} {name}" for one, name in sorted(name_of.items())[:10])
        return f"category_id {number} is none of the data's: {there}{' ...' if len(name_of) > 10 else ''}"
    return ""


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(one, (int, float)) and abs(one) < _LARGEST for one in values)  # which NaN is not
    )


def _detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    held: Tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
    score = torch.tensor(scores, dtype=torch.float64)
    order = score.argsort(descending=True, stable=True)
    return Detections(xywh_to_xyxy(held)[order], score[order], torch.tensor(labels, dtype=torch.long)[order])
