"""Write COCO's results, and a COCO file with the images and categories that their ids refer to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detr_ft.data.writers.base import LabeledImage, write_text
from detr_ft.run_directory import PREDICTIONS

ANNOTATIONS = "annotations.json"


def write(images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write `predictions.json` and `annotations.json`; a category id is the index of the class.

    A result has the name of its class as `category`, and the path of its image as given as `file_name`. The images of
    `annotations.json` have their names below the common folder.
    """
    ids = {name: index for index, name in reversed(list(enumerate(names)))}  # the first of equal names
    rows = [(image, row) for image in images for row in _rows(image, ids)]
    results = [row | {"file_name": image.source} for image, row in rows]
    content = {
        "info": {},
        "licenses": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "images": [
            {"id": image.image_id, "file_name": image.name, "width": image.width, "height": image.height}
            for image in images
        ],
        "annotations": [
            {
                "id": number,
                **{key: value for key, value in row.items() if key != "category"},
                "area": row["bbox"][2] * row["bbox"][3],
                "iscrowd": 0,
            }
            for number, (_, row) in enumerate(rows, start=1)
        ],
    }
    write_text(folder / ANNOTATIONS, json.dumps(content, ensure_ascii=False))
    return write_text(folder / PREDICTIONS, json.dumps(results, indent=1, ensure_ascii=False))


def _rows(image: LabeledImage, ids: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for box in image.boxes:
        row = {"image_id": image.image_id, "category_id": ids[box.name], "bbox": list(box.box)}
        yield row | ({} if box.score is None else {"score": box.score}) | {"category": box.name}
