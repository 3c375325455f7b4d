"""Results of the package `mean_average_precision` on synthetic sets by Pascal VOC's protocol, as `voc_reference.json`.

    pip install mean-average-precision; PYTHONPATH=tests python tests/evaluation/voc_reference.py

It is not installed with the tests; the sets are those of `tide_reference`. The package counts difficult objects among
those to be found, which the protocol doesn't, so there are none here; and a pixel more on each side, which is taken off.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from evaluation.tide_reference import CLASSES, SEEDS, made_up
from numpy.typing import NDArray

THRESHOLDS = (0.5, 0.75)


def main() -> None:
    from mean_average_precision import MetricBuilder

    output = []
    for seed in SEEDS:
        objects, detections = made_up(seed)
        metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=CLASSES)
        for image in range(10):
            there, here = objects[:, 0] == image, detections[:, 0] == image
            truth = np.c_[_corners(objects[there, 2:]), objects[there, 1], np.zeros((there.sum(), 2))]
            metric.add(np.c_[_corners(detections[here, 2:6]), detections[here, 1], detections[here, 6]], truth)
        for threshold in THRESHOLDS:
            eleven = metric.value(iou_thresholds=threshold, recall_thresholds=np.arange(0.0, 1.1, 0.1))["mAP"]
            every = metric.value(iou_thresholds=threshold)["mAP"]
            output.append(
                {"seed": seed, "threshold": threshold, "map_11_points": float(eleven), "map_all_points": float(every)}
            )
    Path(__file__).with_suffix(".json").write_text(json.dumps(output, indent=1) + "\n")


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1]


if __name__ == "__main__":
    main()
