"""A few pictures of the held-out images, as they are and with what was found in them, for the model's card and its Space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from PIL import Image

from detr_ft.data import class_names
from detr_ft.data.images import open_image
from detr_ft.run_directory import EXAMPLES
from detr_ft.structures import Detections
from detr_ft.utils.drawing import draw

_COUNT, _EDGE = 4, 800  # pictures, and pixels of the longest edge


def write_examples(
    run: Path, split: Dataset, found: Sequence[Detections], thresholds: Mapping[str, float]
) -> list[Path]:
    """Write `examples/N.jpg` and `examples/N-found.jpg` into a run, of images with objects that lie evenly over the split."""
    names = class_names(split)
    least = [thresholds.get(name, 0.5) for name in names]
    objects = split.with_format(None).select_columns(["objects"])
    filled = [row for row, one in enumerate(objects) if one["objects"]["category"]]
    chosen = sorted({filled[turn * len(filled) // _COUNT] for turn in range(_COUNT)}) if filled else []
    (run / EXAMPLES).mkdir(exist_ok=True)
    written = []
    for number, row in enumerate(chosen, start=1):
        image = open_image(split[row]["image"])
        scale = min(1.0, _EDGE / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.LANCZOS) if scale < 1 else image
        one = found[row].above_each(least)
        drawn = draw(small, one.boxes * scale, one.labels, names, one.scores)
        for picture, name in ((small, f"{number}.jpg"), (drawn, f"{number}-found.jpg")):
            picture.save(run / EXAMPLES / name, quality=90)
            written.append(run / EXAMPLES / name)
    return written
