"""The figures of parts of a set: images with few and many objects, classes with few and many examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detr_ft.evaluation.bootstrap import resampled
from detr_ft.evaluation.detection_matching import DetectionMatches
from detr_ft.evaluation.metrics import CrowdingSlice, FrequencySlice

_CROWDING = {"1 object": (1, 1), "2 to 5": (2, 5), "6 to 15": (6, 15), "more than 15": (16, None)}
_FREQUENCY = {"under 20 boxes": (0, 19), "20 to 200": (20, 200), "over 200": (201, None)}
Range = tuple[int, int | None]


def by_crowding(marks: DetectionMatches) -> dict[str, CrowdingSlice]:
    """`map`, `map_50`, `mar_100` and the number of `images`, for images with so many objects each."""
    objects = np.bincount(marks.objects.image[marks.counted("all")], minlength=marks.num_images)
    members = {name: _within(objects, span) for name, span in _CROWDING.items()}
    members = {name: chosen for name, chosen in members.items() if chosen.any()}
    if not members:
        return {}
    figures = resampled(marks, np.stack(list(members.values()), axis=1).astype(np.int64))
    return {
        name: CrowdingSlice(int(chosen.sum()), *(_plain(figures[key][place]) for key in ("map", "map_50", "mar_100")))
        for place, (name, chosen) in enumerate(members.items())
    }


def by_frequency(
    per_class: Mapping[str, Mapping[str, Any]], trained_on: Mapping[str, int]
) -> dict[str, FrequencySlice]:
    """The mean `map` and `map_50` of the classes with so many boxes to train on, and the number of `classes`."""
    groups: dict[str, FrequencySlice] = {}
    for name, span in _FREQUENCY.items():
        chosen = [one for label, one in per_class.items() if _within(np.array(trained_on.get(label, 0)), span)]
        if chosen:
            means = (float(np.mean([one[key] for one in chosen])) for key in ("map", "map_50"))
            groups[name] = FrequencySlice(len(chosen), *means)
    return groups


def _within(count: np.ndarray[Any, np.dtype[Any]], span: Range) -> np.ndarray[Any, np.dtype[np.bool_]]:
    low, high = span
    return (count >= low) & (count <= high if high is not None else True)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
