"""Evaluation of ten times the images takes little more memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
import numpy as np
import pytest, torch
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.structures import Detections
from datasets import Dataset

def peak(images):
    rng = np.random.default_rng(0)
    rows, found = [], []
    for image in range(images):
        box = np.c_[rng.uniform(0, 300, (7, 2)), rng.uniform(20, 150, (7, 2))]
        inside = detection_objects(box.tolist(), rng.integers(0, 80, 7).tolist())
        rows.append({"image": {"path": None, "bytes": b""}, "image_id": image, "width": 500, "height": 500, "objects": inside})
        near = box[rng.integers(0, 7, 100)] + rng.normal(0, 20, (100, 4))
        near[:, 2:] = near[:, :2] + np.maximum(near[:, 2:], 1)
        found.append(Detections(torch.tensor(near, dtype=torch.float32), torch.rand(100), torch.randint(0, 80, (100,))))
    split = Dataset.from_list(rows, features=detection_features([str(one) for one in range(80)]))
    del rows
    coco_metrics(split, found)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(peak(int(sys.argv[1])))
"""


def peak(images: int) -> float:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(images)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return float(done.stdout.split()[-1])


@pytest.mark.slow
def test_two_thousand_images_take_little_more_than_two_hundred() -> None:
    assert peak(2000) - peak(200) < 64
