"""Evaluations of splits of several sizes; rank 0 writes them.   torchrun distributed_evaluation.py OUT CHECKPOINT"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from detr_ft.data.generated.generate import generate
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.training.monitor.evaluator import detect_together

SIZES = (1, 2, 5, 7, 8, 9)


def evaluations(accelerator: Accelerator, checkpoint: str) -> dict[str, Any]:
    """Return for each size the metrics, and the best detection of each image, which shows repeated or missing ones."""
    split = generate(f"workshop?train=2&validation={max(SIZES)}&edge=64")["validation"]
    model, processor = load_model(checkpoint)
    fit_labels(model, split.features["objects"]["category"].feature.names)
    results = {}
    for size in SIZES:
        rows = split.select(range(size))
        detections = detect_together(accelerator, model, processor, rows, 2)
        metrics = coco_metrics(rows, detections)
        best = [[*image.boxes[0].tolist(), float(image.scores[0])] for image in detections]
        results[str(size)] = {"metrics": metrics, "best": best}
    return results


def main() -> None:
    accelerator = Accelerator(cpu=True)
    results = evaluations(accelerator, sys.argv[2])
    if accelerator.is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
