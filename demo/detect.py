"""Detection in one image: the model's run, the selection of detections, and their presentation."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from controls import reason_of
from markup import css_color, fit, from_data_uri, header_row, rectangle, svg_image, table, to_data_uri
from PIL import Image
from torch import Tensor
from uploads import UploadedImage, read_upload

from detr_ft.boxes import xyxy_to_xywh
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.structures import Detections
from detr_ft.utils.drawing import draw

DISPLAY_EDGE_PX = 1200  # large and small images are drawn at one size, so that boxes are equally sharp
_MAX_CLASSES_IN_SUMMARY = 5
_MAX_NAMES_IN_LIST = 7


@dataclass(frozen=True)
class DetectedImage:
    """All detections of an image. The session stores them, so that no control runs the model again."""

    name: str
    size: tuple[int, int]
    data_uri: str  # of the image at display size; the original is not stored
    detections: Detections
    seconds: float


@dataclass(frozen=True)
class Problem:
    """A message for the user about images that are not shown."""

    message: str


def detect_file(detector: Detector, path: str | None) -> DetectedImage | Problem | None:
    """Run the model on an uploaded file; None without a file."""
    if path is None:
        return None
    name = Path(path).name
    try:
        upload = read_upload(path)
        start = time.perf_counter()
        detections = _clip(detect_upload(detector, upload), upload.size)
    except InputError as error:
        return Problem(f"**This image can't be read.** {name}: {reason_of(error, path)}")
    seconds = time.perf_counter() - start
    uri = to_data_uri(upload.image, fit(upload.size, DISPLAY_EDGE_PX))
    return DetectedImage(name, upload.size, uri, detections, seconds)


def detect_upload(detector: Detector, upload: UploadedImage) -> Detections:
    """Return all detections of an uploaded image. Boxes are in pixels of the upright original."""
    (detections,) = detector.detect([upload.image])
    return replace(detections, boxes=detections.boxes * detections.boxes.new_tensor(upload.scale * 2))


def _clip(detections: Detections, size: tuple[int, int]) -> Detections:
    limit = detections.boxes.new_tensor([*size, *size])
    return replace(detections, boxes=torch.minimum(detections.boxes.clamp(min=0), limit))


def select(detector: Detector, result: DetectedImage, threshold: float | None, classes: Sequence[str]) -> Detections:
    """Return the detections of some classes above a threshold.

    Without a threshold each class has its own; without `classes` all are selected.
    """
    above = detector.filter(result.detections, threshold)
    return above[[index for index, (_, _, name) in enumerate(above) if name in classes]] if classes else above


def draw_image(result: DetectedImage, selected: Detections) -> Image.Image:
    """Draw the detections on the image at display size, for a file."""
    image = from_data_uri(result.data_uri)
    return draw(image, _scale(result, selected, image.size), selected.labels, selected.names, selected.scores)


def image_svg(result: DetectedImage, selected: Detections) -> str:
    """Draw the detections for the page, each with its class and score."""
    size = fit(result.size, DISPLAY_EDGE_PX)
    boxes, labels = _scale(result, selected, size), selected.labels.tolist()
    shapes = []
    for index, (box, label, (_, score, name)) in enumerate(zip(boxes, labels, selected, strict=True)):
        text = f"{name} {score:.2f}"
        shapes.append(
            f'<g data-object="{index}" tabindex="0" role="img" aria-label="{escape(text)}" style="--own:{css_color(label)}">'
            + rectangle(box, "truth", text)
            + f'<text{_text_position(box, size[0])} y="{max(18.0, float(box[1]) - 6):.1f}">{escape(text)}</text></g>'
        )
    return svg_image(result.data_uri, size, shapes, f"{result.name} with {len(shapes)} detections")


def _text_position(box: Tensor, width: int) -> str:
    """Align a text with the left side of its box, or near the right edge of the image with the right side."""
    left, _, right, _ = box.tolist()
    return f' text-anchor="end" x="{right - 5:.1f}"' if left > 0.8 * width else f' x="{left + 5:.1f}"'


def detections_table(selected: Detections) -> str:
    """Return a table of class, score and box (left, top, width, height in pixels of the upright image)."""
    if not len(selected):
        return ""
    rows = []
    boxes, labels = xyxy_to_xywh(selected.boxes).tolist(), selected.labels.tolist()
    for index, (box, label, (_, score, name)) in enumerate(zip(boxes, labels, selected, strict=True)):
        cells = "".join(f"<td>{round(value)}</td>" for value in box)
        rows.append(
            f'<tr data-object="{index}" tabindex="0"><th scope="row"><span class="dot" style="background:{css_color(label)}"></span>'
            f"{escape(name)}</th><td>{score:.3f}</td>{cells}</tr>"
        )
    return table("Detections, boxes in pixels", header_row(["class", "score", "x", "y", "width", "height"]), rows)


def _scale(result: DetectedImage, selected: Detections, size: tuple[int, int]) -> Tensor:
    """Return the boxes, xyxy `[N, 4]`, in pixels of the image at another size."""
    return selected.boxes * selected.boxes.new_tensor([size[0] / result.size[0], size[1] / result.size[1]] * 2)


def summary(result: DetectedImage, selected: Detections, classes: Sequence[str] = ()) -> str:
    """Summarize the detections by class, with the image size and the model's time."""
    counts = Counter(name for _, _, name in selected)
    by_class = ", ".join(f"{count} × {name}" for name, count in counts.most_common(_MAX_CLASSES_IN_SUMMARY))
    more = len(counts) - _MAX_CLASSES_IN_SUMMARY
    if more > 0:
        by_class += f" and {more} more classes"
    number = "1 detection" if len(selected) == 1 else f"{len(selected) or 'No'} detections"
    of_classes = " of the selected classes" if classes else ""
    width, height = result.size
    facts = f"{width} × {height} pixels, {result.seconds * 1000:.0f} ms"
    return f"**{number}**{of_classes} above the threshold{': ' if by_class else ''}{by_class} — {facts}"


def coco_document(results: Sequence[tuple[DetectedImage, Detections]], names: Sequence[str]) -> dict[str, Any]:
    """Return the selected detections of all images as a COCO document, with class indices as category ids."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (result, selected) in enumerate(results, start=1):
        width, height = result.size
        images.append({"id": image_id, "file_name": result.name, "width": width, "height": height})
        for row in selected.to_coco(image_id=image_id):
            box = [round(value, 2) for value in row["bbox"]]
            rounded = {"bbox": box, "score": round(row["score"], 4), "area": round(box[2] * box[3], 2)}
            annotations.append({"id": len(annotations) + 1, **row, **rounded, "iscrowd": 0})
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    return {"images": images, "categories": categories, "annotations": annotations}


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the class names without repetitions and without COCO's unused ids."""
    return [name for name in dict.fromkeys(names) if name != "N/A"]


def join_names(names: Sequence[str]) -> str:
    """Join class names for a sentence, and count those that do not fit."""
    distinct = distinct_names(names)
    if len(distinct) <= _MAX_NAMES_IN_LIST:
        return ", ".join(distinct)
    first = distinct[: _MAX_NAMES_IN_LIST - 1]
    return f"{', '.join(first)} and {len(distinct) - len(first)} other classes"
