"""The protocol of Pascal VOC: average precision at one IoU, as measured until 2009 and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from detr_ft.data.schema import class_names
from detr_ft.evaluation.arrays import found_of, objects_of
from detr_ft.evaluation.detection_matching import Bools, DetectionArrays, Floats, GroundTruthArrays, Ints
from detr_ft.evaluation.metrics import VocClassMetrics, VocMetrics
from detr_ft.structures import Detections

_RECALLS = np.linspace(0, 1, 11)


def voc_metrics(truth: Dataset, detections: Sequence[Detections], threshold: float = 0.5) -> VocMetrics:
    """VOC's figures of `detections[i]` against row `i` of a split in the schema, at an IoU above `threshold`.

    `map_all_points`: the area under the precision's envelope, VOC's own since 2010; `map_11_points`: the mean at eleven
    recalls, before. Fractions of 1, or None without objects; `per_class` holds both and the `count` for each class.
    A detection is held against the object with the largest IoU alone, so that a second one of it is wrong; difficult
    objects and crowds are no truth, and what finds one doesn't count (Everingham et al., IJCV 2010, section 4.2). Boxes
    are measured as everywhere here, without VOC's extra pixel.
    """
    names, images = class_names(truth), np.arange(len(truth))
    rows = [row["objects"] for row in truth.with_format(None).select_columns(["objects"])]
    spared = np.array([flag for row in rows for flag in row["difficult"]], bool)
    objects, found = objects_of(rows, images), found_of(detections, images)
    per_class = {}
    for label, name in enumerate(names):
        there = np.flatnonzero(objects.label == label)
        here = np.flatnonzero(found.label == label)
        counted = ~(spared | objects.crowd)[there]
        if counted.any():
            here = here[np.argsort(-found.score[here], kind="stable")]
            right, counts = _marked(objects, there, counted, found, here, threshold)
            hits, asked = np.cumsum(right), np.cumsum(counts)
            recall, precision = hits / counted.sum(), hits / np.maximum(asked, 1)
            per_class[name] = VocClassMetrics(_area(recall, precision), _eleven(recall, precision), int(counted.sum()))
    return VocMetrics(
        _mean([one.map_all_points for one in per_class.values()]),
        _mean([one.map_11_points for one in per_class.values()]),
        per_class,
    )


def _marked(
    objects: GroundTruthArrays, there: Ints, counted: Bools, found: DetectionArrays, here: Ints, threshold: float
) -> tuple[Bools, Bools]:
    """`[N]` twice, for detections best first: is it right; does it count."""
    right, counts = np.zeros(len(here), bool), np.ones(len(here), bool)
    taken = np.zeros(len(there), bool)
    of_image = {image: np.flatnonzero(objects.image[there] == image) for image in np.unique(objects.image[there])}
    for place, row in enumerate(here):
        near = of_image.get(found.image[row])
        if near is None:
            continue
        overlap = _overlap(found.box[row], objects.box[there[near]])
        best = int(np.argmax(overlap))
        if overlap[best] <= threshold:
            continue
        if not counted[near[best]]:
            counts[place] = False
        elif not taken[near[best]]:
            taken[near[best]] = right[place] = True
    return right, counts


def _overlap(box: Floats, others: Floats) -> Floats:
    """`[N]`: the IoU of a box with others, xywh; of crowds too, whose inside is not looked at apart."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    inter = np.clip(high - low, 0, None).prod(1)
    union = box[2:].prod() + others[:, 2:].prod(1) - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _area(recall: Floats, precision: Floats) -> float:
    recall, precision = np.r_[0.0, recall, 1.0], np.r_[0.0, precision, 0.0]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * envelope[1:]).sum())


def _eleven(recall: Floats, precision: Floats) -> float:
    # A recall of 0.3 is reached by 3 of 10, though 3 / 10 is less than three times a tenth by a rounding.
    return float(np.mean([precision[recall >= least - 1e-12].max(initial=0.0) for least in _RECALLS]))
