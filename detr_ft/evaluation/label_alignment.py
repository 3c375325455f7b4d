"""Align the classes of a model with those of a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detr_ft.errors import InputError
from detr_ft.structures import Detections

logger = logging.getLogger(__name__)


def same_classes(of_model: Sequence[str], of_data: Sequence[str]) -> list[int] | None:
    """For each class of the model its index in the data, -1 for one that the data lack; None where both are the same.

    What differs is told. Raises InputError where the data have a class that the model doesn't know.
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
        logger.info("classes of the model that the data lack, and that don't count: %s", ", ".join(more))
    if [name for name in of_model if name in of_data] != list(of_data):
        logger.info("the classes of model and data come in another order, and are compared by name")
    index = {name: place for place, name in enumerate(of_data)}
    return [index.get(name, -1) for name in of_model]


def renamed(found: Detections, order: Sequence[int]) -> Detections:
    """Detections under the indices of the data's classes; those of others are left out."""
    labels = found.labels.new_tensor(order)[found.labels]
    keep = labels >= 0
    return Detections(found.boxes[keep], found.scores[keep], labels[keep])
