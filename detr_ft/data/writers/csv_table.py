"""Write a CSV file with a header and one box a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from detr_ft.data.writers.base import LabeledImage, write_text

_HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score")


def write(images: Sequence[LabeledImage], names: Sequence[str], folder: Path) -> Path:
    """Write `predictions.csv`, with corners in pixels; an image without boxes has a line without a class."""
    del names  # a line has the class of its box
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_HEADER)
    for image in (image.clipped() for image in images):
        start = (image.name, image.width, image.height)
        for box in image.boxes:
            table.writerow((*start, box.name, *box.corners, "" if box.score is None else box.score))
        if not image.boxes:
            table.writerow((*start, *[""] * (len(_HEADER) - len(start))))
    return write_text(folder / "predictions.csv", text.getvalue())
