"""Pictures of the page: a photo, and over it the outlines of what is there and of what was found, which can be switched."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from torch import Tensor

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data import class_names, open_image
from detr_ft.data.box_frame import as_tensors
from detr_ft.data.schema import provenance
from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.example_selection import picks
from detr_ft.evaluation.metrics import ThresholdChoice
from detr_ft.structures import Detections
from detr_ft.utils.drawing import class_colour

MOST = 30
_BYTES = 3_200_000
# Longest side and JPEG quality, tried in turn until all pictures together are small enough.
_SIZES = ((720, 85), (560, 80), (420, 75), (320, 65), (240, 50), (160, 40))


_OF_EACH = 6  # pictures under a heading
_HEADINGS = {
    "worst": "Worst",
    "false_alarms": "False alarms",
    "missed": "Missed objects",
    "best": "Best",
    "others": "Others",
}


@dataclass(frozen=True)
class Outline:
    """A box xyxy in pixels of the picture, the name of its class, its colour, and the score of one that was found."""

    box: tuple[float, float, float, float]
    name: str
    colour: str
    score: float | None = None


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A picture under the heading that it belongs to."""

    heading: str
    caption: str
    picture: Image.Image
    truth: Sequence[Outline]
    found: Sequence[Outline]


@dataclass(frozen=True)
class RenderedPhoto:
    """A shot as the page takes it: a data URI, the size of the picture, and lines and text as thick as suits it."""

    shot: AnnotatedPhoto
    uri: str
    width: int
    height: int
    line: float
    text: float


def shown(shots: Sequence[AnnotatedPhoto]) -> dict[str, list[RenderedPhoto]]:
    """The shots by heading, as large as the room for all of them allows."""
    chosen, uris = shots[:MOST], [""]
    for side, quality in _SIZES:
        uris = [_uri(shot.picture, side, quality) for shot in chosen]
        if sum(map(len, uris)) <= _BYTES:
            break
    found: dict[str, list[RenderedPhoto]] = {}
    for shot, uri in zip(chosen, uris, strict=False):
        width, height = shot.picture.size
        one = RenderedPhoto(shot, uri, width, height, max(width, height) / 260, max(width, height) / 30)
        found.setdefault(shot.heading, []).append(one)
    return found


def _uri(image: Image.Image, side: int, quality: int) -> str:
    picture = image.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def shots_of(split: Dataset, detections: Sequence[Detections], told: Assessment) -> list[AnnotatedPhoto]:
    """The images that tell most, with the truth and what was found above the best thresholds."""
    rows = np.argsort(np.asarray(split["image_id"]), kind="stable")  # images are marked in the order of their ids
    chosen = picks(told.errors, told.thresholds, _OF_EACH)
    return [
        _shot(
            _HEADINGS[kind], split[int(rows[image])], class_names(split), detections[int(rows[image])], told.thresholds
        )
        for kind, images in chosen.items()
        for image in images
    ]


def _shot(
    heading: str,
    row: Mapping[str, Any],
    names: Sequence[str],
    found: Detections,
    thresholds: Mapping[str, ThresholdChoice],
) -> AnnotatedPhoto:
    boxes, _ = as_tensors(row["objects"])
    truth = [
        _outline(box, label, names) for box, label in zip(xywh_to_xyxy(boxes), row["objects"]["category"], strict=True)
    ]
    said = [
        _outline(box, label, names, score)
        for box, label, score in zip(found.boxes, found.labels.tolist(), found.scores.tolist(), strict=True)
        if names[label] in thresholds and score > thresholds[names[label]].threshold
    ]
    name = Path(provenance(row["image"], row["image_id"])).name
    caption = f"{name}: {len(truth)} there, {len(said)} found"
    return AnnotatedPhoto(heading, caption, open_image(row["image"]), truth, said)


def _outline(box: Tensor, label: int, names: Sequence[str], score: float | None = None) -> Outline:
    x0, y0, x1, y1 = (float(side) for side in box)
    return Outline((x0, y0, x1, y1), names[label], "#{:02x}{:02x}{:02x}".format(*class_colour(label)), score)
