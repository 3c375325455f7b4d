"""Write YOLO: `data.yaml`, `images/`, and in `labels/` a text file of objects for each image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detr_ft.data.writers.base import LabeledImage, place_images, unique_classes, write_text

_SCORES = "scores.csv"


def write(images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write `data.yaml`, `classes.txt`, `images/`, `labels/` and `scores.csv`.

    A row has a class and a box (center and size in fractions of the image). Ultralytics and the annotation tools refuse a
    sixth number, so the scores are in a table.
    """
    classes = unique_classes(names)
    scores: list[tuple[str, int, str, float]] = []
    for image in place_images([image.clipped() for image in images], folder / "images"):
        label_file = _label_file(PurePosixPath("images", image.name))
        rows = []
        for line, box in enumerate(image.boxes, start=1):
            x, y, w, h = box.box
            center = ((x + w / 2) / image.width, (y + h / 2) / image.height)
            numbers = (*center, w / image.width, h / image.height)
            rows.append(f"{classes.index(box.name)} {' '.join(f'{number:.8f}' for number in numbers)}\n")
            if box.score is not None:
                scores.append((str(label_file), line, box.name, box.score))
        write_text(folder / label_file, "".join(rows))
    if scores:
        write_text(folder / _SCORES, _table(scores))
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in classes))
    return write_text(folder / "data.yaml", _yaml(classes))


def _label_file(image: PurePosixPath) -> PurePosixPath:
    """Return the label file of an image as Ultralytics: `labels` replaces the last `images` of its path."""
    parts = list(image.parts)
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return PurePosixPath(*parts).with_suffix(".txt")


def _table(scores: Sequence[tuple[str, int, str, float]]) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("label_file", "line", "label", "score"))
    table.writerows(scores)
    return text.getvalue()


def _yaml(classes: Sequence[str]) -> str:
    # A JSON text in double quotes is a YAML text.
    names = "".join(f"  {index}: {json.dumps(name, ensure_ascii=False)}\n" for index, name in enumerate(classes))
    return f"train: images\n# Ultralytics requires val. Replace it by images that are not in train.\nval: images\nnames:\n{names}"
