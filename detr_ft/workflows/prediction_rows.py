"""Parse a file of detections: COCO's results, or a COCO file whose annotations have scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detr_ft.errors import InputError
from detr_ft.utils.files import read_regular
from detr_ft.workflows.image_matching import ImageId, as_number

_MAX_COORDINATE_PX = 1e9
_RESULTS = "COCO results, a list of {image_id, category_id, bbox, score}, or a COCO file whose annotations have scores"


@dataclass(frozen=True)
class PredictionRow:
    """A detection: its number in the file, its image by name or id, its class by name or id, its box xywh."""

    number: int
    file_name: str | None
    image_id: ImageId | None
    category: int | str
    box: list[float]
    score: float


@dataclass
class PredictionRows:
    """The detections of a file, and the first message of each kind of fault."""

    file: Path
    rows: list[PredictionRow] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> PredictionRows:
        """Read a file. Raises InputError if it can't be read or has no detections by its structure."""
        content = _parse(file)
        result = cls(file)
        for number, row in enumerate(_results(content, file), start=1):
            parsed = _parse_row(row, number)
            if isinstance(parsed, str):
                result.add_fault(number, parsed)
            else:
                result.rows.append(parsed)
        return result

    def add_fault(self, number: int, fault: str) -> None:
        """Add a message for a row unless an earlier row has the same."""
        self.faults.setdefault(fault, f"{self.file}: result {number}: {fault}")


def _parse(file: Path) -> Any:
    try:
        return json.loads(read_regular(file).decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file}: not valid JSON: {error}. Give COCO's results, such as the predictions.json of detr-ft predict --format coco"
        ) from error


def _results(content: Any, file: Path) -> Iterator[Any]:
    """Return the rows of COCO's results; those of a COCO file get the names of its images and categories."""
    if isinstance(content, list):
        return iter(content)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise InputError(f"{file}: must be {_RESULTS}")
    if annotations and not any(isinstance(row, dict) and "score" in row for row in annotations):
        raise InputError(f"{file}: its annotations have no score, so they are no detections. It must be {_RESULTS}")
    return _named_annotations(
        annotations, _names(content, "images", "file_name"), _names(content, "categories", "name")
    )


def _names(content: Mapping[str, Any], key: str, field: str) -> dict[str, str]:
    """Return the names of images or categories by their ids, which may be numbers or texts."""
    rows = content.get(key)
    entries = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {str(row.get("id")): row[field] for row in entries if isinstance(row.get(field), str)}


def _named_annotations(rows: list[Any], images: Mapping[str, str], categories: Mapping[str, str]) -> Iterator[Any]:
    for row in rows:
        if not isinstance(row, dict):
            yield row
            continue
        names: dict[str, str] = {}
        if str(row.get("image_id")) in images:
            names["file_name"] = images[str(row.get("image_id"))]
        if str(row.get("category_id")) in categories:
            names["category"] = categories[str(row.get("category_id"))]
        yield row | names


def _parse_row(row: Any, number: int) -> PredictionRow | str:
    """Return a row, or what is wrong with it."""
    if not isinstance(row, dict) or not {"bbox", "score"} <= row.keys() or not {"image_id", "file_name"} & row.keys():
        return "must have image_id or file_name, category_id or category, bbox and score"
    name, image_id = row.get("file_name"), row.get("image_id")
    has_name = isinstance(name, str) and bool(name.strip())
    known_id = _id_of(image_id)
    if known_id is None and not has_name:
        return f"image_id must be a number or a text, got {image_id!r}"
    if not _are_numbers(row["bbox"], 4):
        return f"bbox must be [x_min, y_min, width, height] in pixels, got {row['bbox']}"
    if min(row["bbox"][2:]) < 0:
        return f"bbox must be [x_min, y_min, width, height], and a width or height is negative: {row['bbox']}"
    if not _are_numbers([row["score"]], 1) or not 0 <= row["score"] <= 1:
        return f"score must be a number from 0 to 1, got {row['score']!r}"
    category = _id_of(row["category"] if row.get("category") is not None else row.get("category_id"))
    if category is None:
        return f"category_id must be a number or a name, got {row.get('category', row.get('category_id'))!r}"
    return PredictionRow(number, name if has_name else None, known_id, category, row["bbox"], row["score"])


def _id_of(value: Any) -> ImageId | None:
    """Return a whole number or a text as it is written, None for anything else."""
    if isinstance(value, str):
        return value.strip() or None
    return as_number(value)


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        # False for NaN, too
        and all(isinstance(value, (int, float)) and abs(value) < _MAX_COORDINATE_PX for value in values)
    )
