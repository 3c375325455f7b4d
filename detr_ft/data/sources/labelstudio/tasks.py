"""The tasks of a Label Studio export, in its two spellings, and the image that one names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from detr_ft.data.sources.record import IMAGE_SUFFIXES

Row = Mapping[str, object]


def from_min(rows: list[Row]) -> list[Row]:
    """The tasks of JSON-MIN, a row for each annotation, in the shape of those of JSON."""
    tasks: dict[object, dict[str, object]] = {}
    for number, row in enumerate(rows):
        regions = [
            {"type": key, "value": one, **one}
            for key, value in row.items()
            for one in as_list(value)
            if isinstance(one, dict)
        ]
        task = tasks.setdefault(str(row.get("id", f"row {number}")), {"id": row.get("id", number), "data": row})
        annotations = as_list(task.setdefault("annotations", []))
        annotations.append({**row, "id": row.get("annotation_id"), "result": regions})
    return list(tasks.values())


def image_name(data: object) -> str | None:
    """The image's path in a task's data: that called image, else the first text that ends as an image file does."""
    fields = data if isinstance(data, dict) else {}
    texts = [fields.get("image"), *fields.values()]
    names = [_path_of(text) for text in texts if isinstance(text, str) and text]
    return next((name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES), None)


def _path_of(address: str) -> str:
    """The path in an address; local storage writes it as `/data/local-files/?d=PATH`."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:  # no address at all
        return address
    local = parse_qs(parts.query).get("d")
    return (local[0] if local else unquote(parts.path)).lstrip("/")


def is_results(rows: list[object]) -> bool:
    """Whether these are detections, as COCO's results are written."""
    return bool(rows) and isinstance(rows[0], dict) and "image_id" in rows[0]


def as_list(value: object) -> list[object]:
    """The list that a field holds; an empty one for anything else."""
    return value if isinstance(value, list) else []
