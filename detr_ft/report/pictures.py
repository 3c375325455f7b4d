"""Annotated photos, data URIs within a budget, and the example pictures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from torch import Tensor

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.box_frame import as_tensors
from detr_ft.data.images import open_image
from detr_ft.data.schema import class_names, provenance
from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.example_selection import select_images
from detr_ft.evaluation.metrics import ThresholdChoice
from detr_ft.run_directory import DETECTIONS_SUFFIX, EXAMPLES
from detr_ft.structures import Detections
from detr_ft.utils.drawing import class_color, draw, jpeg_data_uri

_MAX_PHOTOS_PER_HEADING = 6
_HEADINGS = {
    "worst": "Worst",
    "false_alarms": "False alarms",
    "missed": "Missed objects",
    "best": "Best",
    "others": "Others",
}
_EXAMPLES, _EXAMPLE_EDGE_PX = 4, 800


@dataclass(frozen=True)
class Outline:
    """A box xyxy in pixels of the photo, the name of its class, its color, and the score of a detection."""

    box: tuple[float, float, float, float]
    name: str
    color: str
    score: float | None = None


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo with the outlines of its objects and detections, under a heading."""

    heading: str
    caption: str
    image: Image.Image
    objects: Sequence[Outline]
    detections: Sequence[Outline]


def data_uris(
    draw_at: Callable[[int], Sequence[Image.Image]], sizes: Sequence[tuple[int, int]], max_bytes: int
) -> list[str]:
    """Return pictures as JPEG data URIs of at most `max_bytes` together.

    `draw_at` draws them for a longest side in pixels. `sizes` are sides with the quality of the JPEG, the largest first; at
    the last one, pictures that exceed the budget are left out from the end.
    """
    uris: list[str] = []
    for side, quality in sizes:
        uris = [jpeg_data_uri(picture, quality) for picture in draw_at(side)]
        if sum(map(len, uris)) <= max_bytes:
            return uris
    while sum(map(len, uris)) > max_bytes:
        uris.pop()
    return uris


def select_photos(split: Dataset, detections: Sequence[Detections], assessment: Assessment) -> list[AnnotatedPhoto]:
    """Return the worst, the best and other photos of a split, annotated.

    Only detections above the thresholds are drawn.
    """
    rows = np.argsort(np.asarray(split["image_id"]), kind="stable")  # matches number the images by their ids
    selected = select_images(assessment.errors, assessment.thresholds, _MAX_PHOTOS_PER_HEADING)
    names = class_names(split)
    return [
        _photo(_HEADINGS[kind], split[row], names, detections[row], assessment.thresholds)
        for kind, images in selected.items()
        for row in map(int, rows[images])
    ]


def _photo(
    heading: str,
    row: Mapping[str, Any],
    names: Sequence[str],
    detections: Detections,
    thresholds: Mapping[str, ThresholdChoice],
) -> AnnotatedPhoto:
    boxes, _ = as_tensors(row["objects"])
    objects = [
        _outline(box, label, names) for box, label in zip(xywh_to_xyxy(boxes), row["objects"]["category"], strict=True)
    ]
    detected = [
        _outline(box, label, names, score)
        for box, label, score in zip(
            detections.boxes, detections.labels.tolist(), detections.scores.tolist(), strict=True
        )
        if names[label] in thresholds and score > thresholds[names[label]].threshold
    ]
    name = Path(provenance(row["image"], row["image_id"])).name
    caption = f"{name}: {len(objects)} objects, {len(detected)} detections"
    return AnnotatedPhoto(heading, caption, open_image(row["image"]), objects, detected)


def _outline(box: Tensor, label: int, names: Sequence[str], score: float | None = None) -> Outline:
    x0, y0, x1, y1 = (float(side) for side in box)
    return Outline((x0, y0, x1, y1), names[label], "#{:02x}{:02x}{:02x}".format(*class_color(label)), score)


def write_examples(
    run: Path, split: Dataset, detections: Sequence[Detections], thresholds: Mapping[str, float]
) -> list[Path]:
    """Write `examples/N.jpg` and `examples/N-found.jpg` into a run, of images with objects.

    The images are evenly spaced over the split.
    """
    names = class_names(split)
    class_thresholds = [thresholds.get(name, 0.5) for name in names]
    objects = split.with_format(None).select_columns(["objects"])
    filled = [row for row, content in enumerate(objects) if content["objects"]["category"]]
    rows = sorted({filled[turn * len(filled) // _EXAMPLES] for turn in range(_EXAMPLES)}) if filled else []
    (run / EXAMPLES).mkdir(exist_ok=True)
    written = []
    for number, row in enumerate(rows, start=1):
        image = open_image(split[row]["image"])
        scale = min(1.0, _EXAMPLE_EDGE_PX / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image
        above = detections[row].above_each(class_thresholds)
        drawn = draw(small, above.boxes * scale, above.labels, names, above.scores)
        for picture, name in ((small, f"{number}.jpg"), (drawn, f"{number}{DETECTIONS_SUFFIX}.jpg")):
            picture.save(run / EXAMPLES / name, quality=90)
            written.append(run / EXAMPLES / name)
    return written
