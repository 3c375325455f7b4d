"""The protocol of Pascal VOC: average precision at one IoU, as measured until 2009 and since 2010."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from detr_ft.data.schema import class_names
from detr_ft.evaluation.coco import detection_arrays, ground_truth_arrays
from detr_ft.evaluation.detection_matching import Bools, DetectionArrays, Floats, GroundTruthArrays, Ints
from detr_ft.evaluation.metrics import VocClassMetrics, VocMetrics
from detr_ft.structures import Detections

_RECALLS = np.linspace(0, 1, 11)


def voc_metrics(truth: Dataset, detections: Sequence[Detections], threshold: float = 0.5) -> VocMetrics:
    """Return VOC's metrics of `detections[i]` on row `i` of a split, at an IoU above `threshold`.

    `map_all_points`: the area under the precision's envelope, as in VOC since 2010; `map_11_points`: the mean at eleven
    recalls, as before. A detection is compared with the object of the largest IoU only, so a second detection of it is wrong;
    difficult objects and crowds don't count, nor do detections of them (Everingham et al., IJCV 2010, section 4.2). Boxes are
    measured without VOC's extra pixel.
    """
    names, images = class_names(truth), np.arange(len(truth))
    rows = [row["objects"] for row in truth.with_format(None).select_columns(["objects"])]
    difficult = np.array([flag for row in rows for flag in row["difficult"]], bool)
    objects, predicted = ground_truth_arrays(rows, images), detection_arrays(detections, images)
    per_class = {}
    for label, name in enumerate(names):
        of_class = np.flatnonzero(objects.label == label)
        own = np.flatnonzero(predicted.label == label)
        counted = ~(difficult | objects.crowd)[of_class]
        if counted.any():
            own = own[np.argsort(-predicted.score[own], kind="stable")]
            correct, counts = _outcomes(objects, of_class, counted, predicted, own, threshold)
            hits, total = np.cumsum(correct), np.cumsum(counts)
            recall, precision = hits / counted.sum(), hits / np.maximum(total, 1)
            per_class[name] = VocClassMetrics(
                _area(recall, precision), _eleven_points(recall, precision), int(counted.sum())
            )
    return VocMetrics(
        _mean([row.map_all_points for row in per_class.values()]),
        _mean([row.map_11_points for row in per_class.values()]),
        per_class,
    )


def _outcomes(
    objects: GroundTruthArrays, of_class: Ints, counted: Bools, predicted: DetectionArrays, own: Ints, threshold: float
) -> tuple[Bools, Bools]:
    """`[N]` twice, for detections best first: is it correct; does it count."""
    correct, counts = np.zeros(len(own), bool), np.ones(len(own), bool)
    matched = np.zeros(len(of_class), bool)
    of_image = {image: np.flatnonzero(objects.image[of_class] == image) for image in np.unique(objects.image[of_class])}
    for index, row in enumerate(own):
        near = of_image.get(predicted.image[row])
        if near is None:
            continue
        iou = _iou(predicted.box[row], objects.box[of_class[near]])
        best = int(np.argmax(iou))
        if iou[best] <= threshold:
            continue
        if not counted[near[best]]:
            counts[index] = False
        elif not matched[near[best]]:
            matched[near[best]] = correct[index] = True
    return correct, counts


def _iou(box: Floats, others: Floats) -> Floats:
    """`[N]`: the IoU of a box with others, xywh; crowds are treated as other objects."""
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


def _eleven_points(recall: Floats, precision: Floats) -> float:
    # 3 of 10 objects reach a recall of 0.3, though 3 / 10 is less than three times a tenth by rounding.
    return float(np.mean([precision[recall >= least - 1e-12].max(initial=0.0) for least in _RECALLS]))
