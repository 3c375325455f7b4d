"""From which score on a detection of each class is to be believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detr_ft.evaluation.detection_matching import Bools, DetectionMatches, Floats
from detr_ft.evaluation.metrics import ThresholdChoice


def best_thresholds(marks: DetectionMatches) -> dict[str, ThresholdChoice]:
    """For each class with objects, the threshold with the best F1 (van Rijsbergen 1979), the highest of equal ones.

    It lies half way between the last score that is taken and the next. A class of which nothing is right gets the best
    threshold of all classes together, with figures of 0.
    """
    right, counts, objects = _of_half(marks)
    everything = np.argsort(-marks.found.score, kind="stable")
    overall = _best(marks.found.score, right, counts, int(objects.sum()), everything)
    found = {}
    for label, rows in enumerate(marks.of_class):
        if objects[label]:
            best = _best(marks.found.score, right, counts, int(objects[label]), np.arange(rows.start, rows.stop))
            found[marks.names[label]] = best or ThresholdChoice(overall.threshold if overall else 0.5, 0.0, 0.0, 0.0)
    return found


def above_thresholds(marks: DetectionMatches, thresholds: Mapping[str, ThresholdChoice]) -> Bools:
    """`[D]`: the detections above the threshold of their class; none of classes without one."""
    least = np.array([thresholds[name].threshold if name in thresholds else np.inf for name in marks.names])
    return np.asarray(marks.found.score > least[marks.found.label], bool)


def f1_over_scores(marks: DetectionMatches, scores: Floats) -> Floats:
    """The F1 of all classes together, at each of some thresholds."""
    right, counts, objects = _of_half(marks)
    taken = marks.found.score[None] > scores[:, None]
    hits, asked = (taken & right).sum(1), (taken & counts).sum(1)
    return np.asarray(2 * hits / np.maximum(asked + objects.sum(), 1), float)


def _of_half(marks: DetectionMatches) -> tuple[Bools, Bools, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    right, counts = marks.marked("all")
    return right[0], counts[0], np.bincount(marks.objects.label[marks.counted("all")], minlength=len(marks.names))


def _best(
    score: Floats, right: Bools, counts: Bools, objects: int, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> ThresholdChoice | None:
    rows = rows[counts[rows]]
    hits = np.cumsum(right[rows])
    if not len(rows) or not hits[-1]:
        return None
    here = score[rows]
    after = np.append(here[1:], 0.0)
    f1 = np.where(here > after, 2 * hits / (np.arange(1, len(rows) + 1) + objects), -1.0)  # equal scores go together
    at = int(np.argmax(f1))
    return ThresholdChoice(
        float((here[at] + after[at]) / 2), float(hits[at] / (at + 1)), float(hits[at] / objects), float(f1[at])
    )
