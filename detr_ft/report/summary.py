"""The verdict on a run, and facts about its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from detr_ft.data.box_frame import count_boxes
from detr_ft.data.schema import boxes_of_classes
from detr_ft.evaluation.detection_matching import AREAS
from detr_ft.evaluation.metrics import DataFacts


def verdict(before: Mapping[str, Any] | None, after: Mapping[str, Any], images: str = "held-out images") -> str:
    """Return a sentence on the model's quality; `before` and `after` are COCO's metrics by name."""
    if not after or after["map"] is None:
        return f"Nothing was measured: {images} contain no objects."
    start = "" if not before or before["map"] is None else f", from {before['map']:.3f} before"
    return (
        f"On {images} the model reaches mAP {after['map']:.3f}{start}, "
        f"and an average precision of {after['map_50']:.0%} for boxes that overlap by half (mAP50)."
    )


def data_facts(train: Dataset, validation: Dataset, skipped: int) -> DataFacts:
    """Return the numbers of images and boxes, by class and size, and of skipped images."""
    boxes = boxes_of_classes(train)
    return DataFacts(
        train_images=len(train),
        held_out_images=len(validation),
        skipped_images=skipped,
        train_boxes=sum(boxes.values()),
        boxes=str(count_boxes(train)),
        per_class=boxes,
        sizes=_boxes_by_size(train),
    )


def _boxes_by_size(split: Dataset) -> dict[str, int]:
    """Return the numbers of small, medium and large boxes by COCO's limits, in original pixels."""
    areas = [area for row in split.with_format(None).select_columns(["objects"]) for area in row["objects"]["area"]]
    return {name: sum(low <= area < high for area in areas) for name, (low, high) in AREAS.items() if name != "all"}


def describe_data(source: str, train: Dataset, validation: Dataset) -> dict[str, str]:
    """Return the data of a run as facts for its report."""
    boxes = boxes_of_classes(train)
    return {
        "data": source,
        "training": f"{len(train):,} images, {sum(boxes.values()):,} boxes of {len(boxes)} classes",
        "held out": f"{len(validation):,} images",
        "training boxes": ", ".join(f"{name} {count:,}" for name, count in boxes.items()),
    }
