"""Rate of false differences between equally good models, and of detected differences to a slightly worse one.

    python tests/benchmarks/noise.py

100 pairs of made-up models of the same quality on 200 images each; ten models on 500 images beside themselves with
another class for 5 % of their detections. Status 1 where more than six pairs differ, or a worse model is not found.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.synthetic_detections import equal_models, with_wrong_classes
from tables import Tables, parser_of

from detr_ft.evaluation.bootstrap import differences


def main() -> int:
    tables, began = Tables(parser_of(__doc__).parse_args().json), time.monotonic()
    alike = [differences(*equal_models(seed, 200), sets=500, seed=seed)["map"] for seed in range(100)]
    num_differing = sum(one is not None and one.real for one in alike)
    detections = 0
    for seed in range(10):
        one, _ = equal_models(1000 + seed, 500)
        difference = differences(one, with_wrong_classes(one, 0.05, seed), sets=500, seed=seed)["map"]
        detections += difference is not None and difference.real and difference.value < 0
    tables.begin({"pairs": "", "of them": "", "found to differ": "", "bar": ""})
    tables.row("equally good", 100, num_differing, "at most 6")
    tables.row("wrong class for 5 %", 10, detections, "all")
    tables.note(f"{time.monotonic() - began:.0f} seconds")
    return int(num_differing > 6 or detections < 10)


if __name__ == "__main__":
    raise SystemExit(main())
