"""Results of the package `tidecv` on synthetic sets, as `tide_reference.json`.   pip install tidecv; python tide_reference.py

It is not installed with the tests, since it needs OpenCV. The sets are made by `made_up`, which the test calls as well.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEEDS = (0, 1, 2, 4, 5, 6)
CLASSES = 3
NAMES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}


def made_up(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Objects `[P, 6]` and detections `[D, 7]`: image, class, box xywh, and of detections a score that no other has."""
    rng = np.random.default_rng(seed)
    # Neither these numbers nor, with the seeds above, those less the missed divide 100: whether a recall of 0.35 reaches
    # 0.35 is a matter of rounding, and not of TIDE.
    of_class = [17, 19, 23]
    images, many, found = 10, sum(of_class), 300
    objects = np.c_[
        rng.integers(0, images, many),
        np.repeat(np.arange(CLASSES), of_class),
        rng.uniform(0, 300, (many, 2)),
        rng.uniform(20, 120, (many, 2)),
    ]
    near = objects[rng.integers(0, many, found)].copy()
    near[:, 2:] += rng.normal(0, rng.choice([2, 12, 40], found)[:, None], (found, 4))
    near[:, 4:] = np.maximum(near[:, 4:], 2)
    other = rng.random(found) < 0.25
    near[other, 1] = rng.integers(0, CLASSES, other.sum())
    nowhere = rng.random(found) < 0.15
    near[nowhere, 2:] = np.c_[rng.uniform(0, 300, (nowhere.sum(), 2)), rng.uniform(5, 60, (nowhere.sum(), 2))]
    return objects, np.c_[near, rng.permutation(found) / found]


def main() -> None:
    from tidecv import TIDE, Data

    output = []
    for seed in SEEDS:
        objects, found = made_up(seed)
        truth, detections = Data("truth"), Data("found")
        for image, label, *box in objects.tolist():
            truth.add_ground_truth(int(image), int(label), box)
        # Its matching takes detections as they come: the likeliest first.
        for image, label, *box, score in sorted(found.tolist(), key=lambda one: -one[-1]):
            detections.add_detection(int(image), int(label), score, box)
        run = TIDE().evaluate(truth, detections, mode=TIDE.BOX)
        costs = {NAMES[kind.short_name]: value / 100 for kind, value in run.fix_main_errors().items()}
        counts = {NAMES[kind.short_name]: value for kind, value in run.count_errors().items()}
        output.append({"seed": seed, "map_50": run.ap / 100, "costs": costs, "counts": counts})
    Path(__file__).with_suffix(".json").write_text(json.dumps(output, indent=1) + "\n")


if __name__ == "__main__":
    main()
