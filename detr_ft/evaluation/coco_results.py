"""Detections as COCO results files and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detr_ft.structures import Detections


def coco_results(
    detections: Sequence[Detections], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """COCO's results format: `image_id`, `category_id`, `bbox` (xywh, pixels) and `score` of every detection.

    `category_ids` holds the id under which each class goes, in the order of the class indices.
    """
    return [
        row
        for image_id, found in zip(image_ids, detections, strict=True)
        for row in found.to_coco(image_id=image_id, category_ids=category_ids)
    ]
