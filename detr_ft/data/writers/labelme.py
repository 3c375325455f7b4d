"""Write LabelMe and X-AnyLabeling: a JSON file of shapes beside each image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detr_ft.data.writers.base import LabeledBox, LabeledImage, place_images, write_text

_VERSION = "5.5.0"  # of LabelMe, whose format it is


def write(images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write the images with a JSON file beside each, and return the folder."""
    del names  # a file has only the classes of its shapes
    folder.mkdir(parents=True, exist_ok=True)
    for image in place_images([image.clipped() for image in images], folder):
        path = PurePosixPath(image.name)
        content: dict[str, object] = {
            "version": _VERSION,
            "flags": {},
            "shapes": [_shape(box) for box in image.boxes],
            "imagePath": path.name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        write_text(folder / path.with_suffix(".json"), json.dumps(content, indent=1, ensure_ascii=False))
    return folder


def _shape(box: LabeledBox) -> dict[str, object]:
    x0, y0, x1, y1 = box.corners
    return {
        "label": box.name,
        "points": [[x0, y0], [x1, y1]],
        "group_id": None,
        "description": "",
        "shape_type": "rectangle",
        "flags": {},
        **({} if box.score is None else {"score": box.score}),
    }
