"""The first sentences on a run or an evaluation, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detr_ft.evaluation.metrics import TOO_SHORT, EvaluationMetrics, TrainingEnd

_FEW_IMAGES = 200  # below, more images help more than any setting
_RISE = 0.01  # of mAP in the last quarter of a run that still learns
_NEAR_ZERO = 0.05  # an mAP that has a diagnosis


def headline(
    metrics: EvaluationMetrics,
    images: str = "held-out images",
    before: Mapping[str, Any] | None = None,
    end: TrainingEnd | None = None,
) -> str:
    """Return two sentences: whether the run was cut, what the model finds, and its mAP.

    `before` are COCO's metrics before training.
    """
    if metrics.map is None:
        first = f"Nothing was measured: {images} contain no objects."
        return f"{_cut(end)} {first}" if _cut(end) else first
    finds, value = _finds(metrics, images), _map(metrics, before)
    if _cut(end):
        return f"{_cut(end)} {finds[:-1]} ({value})." if finds else f"{_cut(end)} On {images} {value}."
    return f"{finds} Its {value}." if finds else f"On {images} {value}."


def _cut(end: TrainingEnd | None) -> str:
    if end is None or not end.stopped_by:
        return ""
    verb = "cut by its time limit" if end.stopped_by == "time limit" else "ended by early stopping"
    return f"This run was {verb} after {end.epochs:g} of {end.planned_epochs} epochs."


def _finds(metrics: EvaluationMetrics, images: str) -> str:
    """Return a sentence with recall and precision at the thresholds of the classes, empty without them."""
    objects = detections = right = 0.0
    for name, choice in metrics.thresholds.items():
        count = metrics.per_class[name].count if name in metrics.per_class else 0
        objects += count
        right += choice.recall * count
        detections += choice.recall * count / choice.precision if choice.precision else 0.0
    if not objects:
        return ""
    if not detections:
        return f"On {images} the model finds none of the objects."
    return (
        f"On {images} the model finds {100 * right / objects:.0f} of 100 objects, and {100 * right / detections:.0f} of 100 "
        "detections are right."
    )


def _map(metrics: EvaluationMetrics, before: Mapping[str, Any] | None) -> str:
    interval = metrics.intervals.get("map")
    spread = "" if interval is None else f", 95 % interval {interval.low:.3f} to {interval.high:.3f}"
    text = f"mAP is {metrics.map:.3f}{spread}"
    start = None if before is None else before.get("map")
    if start is None:
        return text
    return f"{text}, {'equal to' if within_noise(metrics, start) else 'from'} {start:.3f} before training"


def within_noise(metrics: EvaluationMetrics, other: float) -> bool:
    """Return whether another mAP on the same images is inside the interval of this one."""
    interval = metrics.intervals.get("map")
    return interval is not None and interval.low <= other <= interval.high


def next_steps(
    metrics: EvaluationMetrics, end: TrainingEnd, maps: Sequence[float], train_images: int, folder: str
) -> list[str]:
    """Return what to do next, the most important first, by how the run went.

    `maps` are the mAPs of the evaluations in their order.
    """
    steps = [
        _continue(end, folder),
        *(cause for cause in end.diagnosis if not (_was_cut(end) and cause.startswith(TOO_SHORT))),
        _train_longer(end, maps),
        _more_images(train_images) if (metrics.map or 0.0) >= _NEAR_ZERO else "",
    ]
    return [step for step in steps if step]


def _continue(end: TrainingEnd, folder: str) -> str:
    if not _was_cut(end):
        return ""
    return f"Continue the run: detr-ft train {folder}/recipe.yaml --resume train.max_minutes=null"


def _was_cut(end: TrainingEnd) -> bool:
    return end.stopped_by == "time limit"


def _train_longer(end: TrainingEnd, maps: Sequence[float]) -> str:
    if end.stopped_by or len(maps) < 4:
        return ""
    rise = maps[-1] - maps[-1 - len(maps) // 4]
    if rise < _RISE:
        return ""
    return (
        f"mAP still rose by {rise:.3f} in the last quarter of the run: train longer "
        f"(train.num_train_epochs={2 * end.planned_epochs})"
    )


def _more_images(train_images: int) -> str:
    if train_images >= _FEW_IMAGES:
        return ""
    return f"{train_images} images are few: more of them help more than any setting"
