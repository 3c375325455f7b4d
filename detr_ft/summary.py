"""What a run says of itself at its end: the page, and a few lines on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data import class_names, open_image
from detr_ft.data.frame import as_tensors
from detr_ft.data.schema import provenance
from detr_ft.drawing import draw
from detr_ft.report.page import MAX_PICTURES
from detr_ft.structures import Detections

SHOWN_SCORE = 0.5


def verdict(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """One sentence on how good the model is now, on images that it was not trained on."""
    if not after or after["map"] is None:
        return "Nothing was measured: the held-out images hold no objects."
    start = "" if not before or before["map"] is None else f", from {before['map']:.3f} before"
    return (
        f"On held-out images the model reaches mAP {after['map']:.3f}{start}; "
        f"it finds objects with {after['map_50']:.0%} average precision where a box must overlap by half (mAP50)."
    )


def gallery(split: Dataset, detections: Sequence[Detections]) -> list[tuple[str, Image.Image, Image.Image]]:
    """The first images of a split: a caption, the truth drawn and the predictions drawn."""
    names = class_names(split)
    pictures = []
    for row, found in zip(split.select(range(min(MAX_PICTURES, len(split)))), detections, strict=False):
        image = open_image(row["image"])
        bbox, _ = as_tensors(row["objects"])
        labels = torch.tensor(row["objects"]["category"], dtype=torch.long)
        said = found.above(SHOWN_SCORE)
        caption = (
            f"{Path(provenance(row['image'], row['image_id'])).name}: {len(labels)} true, {len(said.labels)} found"
        )
        pictures.append(
            (
                caption,
                draw(image, xywh_to_xyxy(bbox), labels, names),
                draw(image, said.boxes, said.labels, names, said.scores),
            )
        )
    return pictures
