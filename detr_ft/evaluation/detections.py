"""Detections under the classes of other data, and in COCO's results format."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from detr_ft.errors import InputError
from detr_ft.structures import Detections

logger = logging.getLogger(__name__)


def align_classes(of_model: Sequence[str], of_data: Sequence[str]) -> list[int] | None:
    """Return the index in the data of each class of the model, -1 without one; None if both are equal.

    Logs differences. Raises InputError if the data have a class that the model does not know.
    """
    if list(of_model) == list(of_data):
        return None
    unknown = [name for name in of_data if name not in of_model]
    if unknown:
        raise InputError(
            f"the data have classes that the model doesn't know: {', '.join(unknown)} (it knows {', '.join(of_model)}). "
            "Classes are compared by name; rename those of the data, or evaluate on data of these classes"
        )
    more = [name for name in of_model if name not in of_data]
    if more:
        logger.info("classes of the model that are not in the data, and don't count: %s", ", ".join(more))
    if [name for name in of_model if name in of_data] != list(of_data):
        logger.info("the classes of model and data are in another order, and are compared by name")
    index = {name: position for position, name in enumerate(of_data)}
    return [index.get(name, -1) for name in of_model]


def relabel(detections: Detections, order: Sequence[int]) -> Detections:
    """Return detections under the indices of the data's classes, without those of other classes."""
    labels = detections.labels.new_tensor(order)[detections.labels]
    keep = labels >= 0
    return Detections(detections.boxes[keep], detections.scores[keep], labels[keep])


def coco_results(
    detections: Sequence[Detections], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return rows of COCO's results: `image_id`, `category_id`, `bbox` (xywh, pixels) and `score`.

    `category_ids` are the ids of the classes, in the order of the class indices.
    """
    return [
        row
        for image_id, image in zip(image_ids, detections, strict=True)
        for row in image.to_coco(image_id=image_id, category_ids=category_ids)
    ]
