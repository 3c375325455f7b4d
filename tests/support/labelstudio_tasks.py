"""Tasks of Label Studio's export JSON."""

from __future__ import annotations

import json
from pathlib import Path


def region(kind: str, value: dict[str, object], **changes: object) -> dict[str, object]:
    """A region of an image of 200x100 pixels; `value` is in percent."""
    return {
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": value,
        "id": f"r{len(value)}{kind}",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
        **changes,
    }


def rectangle(label: str, *percent: float, rotation: float = 0, **changes: object) -> dict[str, object]:
    value = dict(zip(("x", "y", "width", "height"), percent, strict=True))
    return region("rectanglelabels", {**value, "rotation": rotation, "rectanglelabels": [label]}, **changes)


def annotation(number: int, *regions: object, **changes: object) -> dict[str, object]:
    return {
        "id": number,
        "completed_by": 1,
        "result": list(regions),
        "was_cancelled": False,
        "created_at": f"2024-05-0{number}T10:00:00.000000Z",
        "updated_at": f"2024-05-0{number}T10:00:00.000000Z",
        **changes,
    }


def task(number: int, image: str, *annotations: object) -> dict[str, object]:
    return {
        "id": number,
        "annotations": list(annotations),
        "file_upload": image.rpartition("/")[2],
        "predictions": [],
        "data": {"image": image},
        "meta": {},
        "project": 1,
    }


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file
