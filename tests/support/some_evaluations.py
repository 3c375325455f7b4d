"""Evaluations of splits of several sizes, written by rank 0.   torchrun some_evaluations.py OUT CHECKPOINT"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from detr_ft.data.generated.generate import generate
from detr_ft.models import fit_labels, load_model
from detr_ft.training.monitor.evaluator import evaluate_split

SIZES = (1, 2, 5, 7, 8, 9)


def evaluations(accelerator: Accelerator, checkpoint: str) -> dict[str, Any]:
    """For each size the metrics, and of each image the first box and score."""
    split = generate(f"workshop?train=2&validation={max(SIZES)}&edge=64")["validation"]
    model, processor = load_model(checkpoint)
    fit_labels(model, split.features["objects"]["category"].feature.names)
    results = {}
    for size in SIZES:
        metrics, detections = evaluate_split(accelerator, model, processor, split.select(range(size)), 2)
        firsts = [[*one.boxes[0].tolist(), float(one.scores[0])] for one in detections]
        results[str(size)] = {"metrics": metrics, "firsts": firsts}
    return results


def main() -> None:
    accelerator = Accelerator(cpu=True)
    results = evaluations(accelerator, sys.argv[2])
    if accelerator.is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
