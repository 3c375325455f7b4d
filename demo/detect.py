"""What the demo does with one picture, without a page: the model's run, the selection, and what is said of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import torch
from markup import css_color, embedded, head, opened, rectangle, scene, table
from PIL import Image

from detr_ft.boxes import xyxy_to_xywh
from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.structures import Detections
from detr_ft.utils.drawing import draw

DISPLAY_EDGE = 1200  # pixels of the longest edge of the drawn picture: boxes are crisp on small and large ones alike


@dataclass(frozen=True)
class Found:
    """What the model found in one picture: kept for the session, so that no control runs the model again."""

    name: str
    size: tuple[int, int]
    address: str  # of the picture at display size, which is all that is kept of it
    detections: Detections
    seconds: float


@dataclass(frozen=True)
class Problem:
    """Why a picture could not be read, for the person before the screen."""

    message: str


def analyse(detector: Detector, path: str | None) -> Found | Problem | None:
    """Run the model on an uploaded file."""
    if path is None:
        return None
    try:
        image = open_image(path)
        start = time.perf_counter()
        detections = _within(detector.detect([image])[0], image.size)
    except InputError as error:
        words = str(error).replace(path, Path(path).name)
        return Problem(words if Path(path).name in words else f"{Path(path).name}: {words}")
    seconds = time.perf_counter() - start
    scale = DISPLAY_EDGE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    address = embedded(image.resize((width, height), Image.Resampling.LANCZOS))
    return Found(Path(path).name, image.size, address, detections, seconds)


def _within(found: Detections, size: tuple[int, int]) -> Detections:
    """The boxes cut to the picture: what lies beyond it can't be seen."""
    limit = found.boxes.new_tensor([*size, *size])
    return replace(found, boxes=torch.minimum(found.boxes.clamp(min=0), limit))


def select(detector: Detector, found: Found, threshold: float | None, classes: Sequence[str]) -> Detections:
    """The detections above the threshold, or without one above that of their class, of the chosen classes; of all if none is chosen."""
    above = detector.filter(found.detections, threshold)
    return above[[index for index, (_, _, name) in enumerate(above) if name in classes]] if classes else above


def painted(found: Found, shown: Detections) -> Image.Image:
    """The picture at display size with its boxes, to be saved."""
    picture = opened(found.address)
    return draw(picture, _scaled(found, shown, picture.size), shown.labels, shown.names, shown.scores)


def drawn(found: Found, shown: Detections) -> str:
    """The picture on the page, with boxes that say their class and score at the pointer."""
    parts = []
    scale = DISPLAY_EDGE / max(found.size)
    shape = (max(1, round(found.size[0] * scale)), max(1, round(found.size[1] * scale)))
    boxes, labels = _scaled(found, shown, shape), shown.labels.tolist()
    for place, (box, label, (_, score, name)) in enumerate(zip(boxes, labels, shown, strict=True)):
        said = f"{name} {score:.2f}"
        parts.append(
            f'<g data-object="{place}" tabindex="0" role="img" aria-label="{escape(said)}" style="--own:{css_color(label)}">'
            + rectangle(box, "true", said)
            + f'<text{_anchored(box, shape[0])} y="{max(18.0, float(box[1]) - 6):.1f}">{escape(said)}</text></g>'
        )
    told = f"{found.name} with {len(parts)} boxes"
    return scene(found.address, shape, parts, told)


def _anchored(box: Any, width: int) -> str:
    """Where a box's words begin, or near the right edge, end."""
    left, _, right, _ = box.tolist()
    return f' text-anchor="end" x="{right - 5:.1f}"' if left > 0.8 * width else f' x="{left + 5:.1f}"'


def rows(shown: Detections) -> str:
    """The table: class, score, and the box's left, top, width and height in pixels of the upright picture."""
    lines = []
    boxes, labels = xyxy_to_xywh(shown.boxes).tolist(), shown.labels.tolist()
    for place, (box, label, (_, score, name)) in enumerate(zip(boxes, labels, shown, strict=True)):
        cells = "".join(f"<td>{round(value)}</td>" for value in box)
        lines.append(
            f'<tr data-object="{place}" tabindex="0"><th scope="row"><span class="dot" style="background:{css_color(label)}"></span>'
            f"{escape(name)}</th><td>{score:.3f}</td>{cells}</tr>"
        )
    return table("Boxes, in pixels", head(["class", "score", "x", "y", "width", "height"]), lines) if lines else ""


def _scaled(found: Found, shown: Detections, shape: tuple[int, int]) -> Any:
    """The boxes `[N, 4]` in pixels of the picture at another size."""
    return shown.boxes * shown.boxes.new_tensor([shape[0] / found.size[0], shape[1] / found.size[1]] * 2)


def sentence(found: Found, shown: Detections, classes: Sequence[str] = ()) -> str:
    """What is shown, in a line: how many of what, of which classes, the picture's size, the model's time."""
    counts = Counter(name for _, _, name in shown)
    what = ", ".join(f"{count} × {name}" for name, count in counts.most_common(5))
    more = f" and {len(counts) - 5} more classes" if len(counts) > 5 else ""
    objects = "1 object" if len(shown) == 1 else f"{len(shown) or 'No'} objects"
    width, height = found.size
    facts = f"{width} × {height} pixels, {found.seconds * 1000:.0f} ms"
    of = " of the chosen classes" if classes else ""
    return f"**{objects}**{of} above the threshold{': ' if what else ''}{what}{more} — {facts}"


def coco(every: Sequence[tuple[Found, Detections]], names: Sequence[str]) -> dict[str, Any]:
    """What is shown of each picture as a COCO document; a category's id is the model's own index."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (found, shown) in enumerate(every, start=1):
        width, height = found.size
        images.append({"id": image_id, "file_name": found.name, "width": width, "height": height})
        for row in shown.to_coco(image_id=image_id):
            box = [round(value, 2) for value in row["bbox"]]
            rounded = {"bbox": box, "score": round(row["score"], 4), "area": round(box[2] * box[3], 2)}
            annotations.append({"id": len(annotations) + 1, **row, **rounded, "iscrowd": 0})
    return {
        "images": images,
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": annotations,
    }


def known(names: Sequence[str]) -> list[str]:
    """The names without repetition and without the ids that COCO leaves unused."""
    return [name for name in dict.fromkeys(names) if name != "N/A"]


def listed(names: Sequence[str]) -> str:
    """The names as a sentence takes them."""
    every = known(names)
    return f"{', '.join(every[:6])} and {len(every) - 6} other classes" if len(every) > 7 else ", ".join(every)
