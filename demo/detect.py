"""What the demo does with one picture, without a page: the model's run, the selection, and what is said of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from detr_ft.data.images import open_image
from detr_ft.drawing import draw
from detr_ft.errors import UserError
from detr_ft.inference import Detector
from detr_ft.structures import Detections

DISPLAY_EDGE = 1200  # pixels of the longest edge of the drawn picture: boxes are crisp on small and large ones alike


@dataclass(frozen=True)
class Found:
    """What the model found in one picture: kept for the session, so that no control runs the model again."""

    name: str
    size: tuple[int, int]
    picture: Image.Image  # at display size
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
    except UserError as error:
        return Problem(str(error).replace(path, Path(path).name))
    start = time.perf_counter()
    detections = detector.detect([image])[0]
    seconds = time.perf_counter() - start
    scale = DISPLAY_EDGE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    return Found(
        Path(path).name, image.size, image.resize((width, height), Image.Resampling.LANCZOS), detections, seconds
    )


def select(found: Found, names: Sequence[str], threshold: float, classes: Sequence[str]) -> Detections:
    """The detections whose score is above the threshold, of the chosen classes; of all if none is chosen."""
    above = found.detections.above(threshold)
    keep = [index for index, label in enumerate(above.labels.tolist()) if not classes or names[label] in classes]
    return Detections(above.boxes[keep], above.scores[keep], above.labels[keep])


def drawn(found: Found, names: Sequence[str], shown: Detections) -> Image.Image:
    """The picture at display size with its boxes."""
    scale = shown.boxes.new_tensor([found.picture.width / found.size[0], found.picture.height / found.size[1]] * 2)
    return draw(found.picture, shown.boxes * scale, shown.labels, names, shown.scores)


def rows(names: Sequence[str], shown: Detections) -> list[list[Any]]:
    """The table: class, score, and the box's left, top, width and height in pixels of the upright picture."""
    table = []
    for (x0, y0, x1, y1), score, label in zip(
        shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), strict=True
    ):
        table.append([names[label], round(score, 3), round(x0), round(y0), round(x1 - x0), round(y1 - y0)])
    return table


def sentence(found: Found, names: Sequence[str], shown: Detections) -> str:
    """What is shown, in a line: how many of what, the picture's size, the model's time."""
    counts = Counter(names[label] for label in shown.labels.tolist())
    what = ", ".join(f"{count} × {name}" for name, count in counts.most_common(5))
    more = f" and {len(counts) - 5} more classes" if len(counts) > 5 else ""
    objects = "1 object" if len(shown.labels) == 1 else f"{len(shown.labels) or 'No'} objects"
    width, height = found.size
    facts = f"{width} × {height} pixels, {found.seconds * 1000:.0f} ms"
    return f"**{objects}** at this threshold{': ' if what else ''}{what}{more} — {facts}"


def coco(found: Found, names: Sequence[str], shown: Detections) -> dict[str, Any]:
    """The shown detections as a COCO document; a category's id is the model's own index."""
    annotations = []
    for index, ((x0, y0, x1, y1), score, label) in enumerate(
        zip(shown.boxes.tolist(), shown.scores.tolist(), shown.labels.tolist(), strict=True), start=1
    ):
        box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
        annotations.append(
            {
                "id": index,
                "image_id": 1,
                "category_id": label,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "score": round(score, 4),
            }
        )
    width, height = found.size
    return {
        "images": [{"id": 1, "file_name": found.name, "width": width, "height": height}],
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
