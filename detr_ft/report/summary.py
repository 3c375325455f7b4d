"""What a run says of itself at its end: the page, and a few lines on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from detr_ft.data.box_frame import count_boxes
from detr_ft.data.schema import boxes_of_classes
from detr_ft.evaluation.detection_matching import AREAS
from detr_ft.evaluation.metrics import DataFacts
from detr_ft.workflows.prepare import Prepared


def verdict(before: Mapping[str, Any] | None, after: Mapping[str, Any], where: str = "held-out images") -> str:
    """One sentence on how good the model is now, on which images."""
    if not after or after["map"] is None:
        return f"Nothing was measured: {where} hold no objects."
    start = "" if not before or before["map"] is None else f", from {before['map']:.3f} before"
    return (
        f"On {where} the model reaches mAP {after['map']:.3f}{start}; "
        f"it finds objects with {after['map_50']:.0%} average precision where a box must overlap by half (mAP50)."
    )


def data_facts(prepared: Prepared) -> DataFacts:
    """The data of a run in figures: images and boxes, of each class and size, and what was left out."""
    trained = boxes_of_classes(prepared.train)
    counts = count_boxes(prepared.train)
    return DataFacts(
        train_images=len(prepared.train),
        held_out_images=len(prepared.validation),
        skipped_images=prepared.skipped,
        train_boxes=sum(trained.values()),
        boxes=str(counts),
        per_class=trained,
        sizes=_sizes(prepared.train),
    )


def _sizes(split: Dataset) -> dict[str, int]:
    """How many boxes are small, medium and large, by COCO's limits, in pixels of the images as they are."""
    areas = [one for row in split.with_format(None).select_columns(["objects"]) for one in row["objects"]["area"]]
    return {name: sum(low <= one < high for one in areas) for name, (low, high) in AREAS.items() if name != "all"}


def described(source: str, prepared: Prepared) -> dict[str, str]:
    """The data of a run in a few facts."""
    trained = boxes_of_classes(prepared.train)
    return {
        "data": source,
        "trained on": f"{len(prepared.train):,} images, {sum(trained.values()):,} boxes of {len(trained)} classes",
        "held out": f"{len(prepared.validation):,} images",
        "boxes to train on": ", ".join(f"{name} {count:,}" for name, count in trained.items()),
    }
