"""COCO metrics and intervals of 5,000 images, 80 classes and 500,000 detections, compared with other packages.

    python tests/benchmarks/evaluation_speed.py            [--images 5000]

Each evaluates the same tables once, in turn, in a process of its own, which prints its time and peak memory; converting
the tables counts. Status 1 if the metrics differ, or ours takes more than a seventh of pycocotools' time.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from tables import Tables, parser_of

from detr_ft.evaluation.bootstrap import differences, intervals
from detr_ft.evaluation.coco import precision_recall, summarize
from detr_ft.evaluation.detection_matching import (
    AREAS,
    DetectionArrays,
    DetectionMatches,
    GroundTruthArrays,
    match_detections,
)
from detr_ft.evaluation.metrics import COCO_METRICS

CLASSES, DETECTIONS, THERE = 80, 100, 7
DROP_INS = {  # where each has its COCO and its COCOeval
    "pycocotools": (("pycocotools.coco", "COCO"), ("pycocotools.cocoeval", "COCOeval")),
    "faster-coco-eval": (("faster_coco_eval", "COCO"), ("faster_coco_eval", "COCOeval_faster")),
    "ultrafast-pycocotools": (("ultrafast_pycocotools", "COCO"), ("ultrafast_pycocotools", "COCOeval")),
    "hotcoco": (("hotcoco", "COCO"), ("hotcoco", "COCOeval")),
    "vernier": (("pycocotools.coco", "COCO"), ("vernier", "COCOeval")),
}


def tables(images: int, classes: int = CLASSES) -> tuple[GroundTruthArrays, DetectionArrays]:
    """About seven objects an image, some of them crowds; a hundred detections, most of them elsewhere."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(images), rng.poisson(THERE, images))
    box = np.c_[rng.uniform(0, 500, (len(image), 2)), np.exp(rng.normal(4, 0.9, (len(image), 2)))]
    label = rng.integers(0, classes, len(image))
    objects = GroundTruthArrays(image, label, box, box[:, 2] * box[:, 3] * 0.7, rng.random(len(image)) < 0.01)
    number = images * DETECTIONS
    near = rng.integers(0, len(image), number)
    close = rng.random(number) < 0.3
    moved = box[near] * (1 + rng.normal(0, 0.08, (number, 4)))
    anywhere = np.c_[rng.uniform(0, 500, (number, 2)), np.exp(rng.normal(4, 0.9, (number, 2)))]
    found_label = np.where(close & (rng.random(number) < 0.8), label[near], rng.integers(0, classes, number))
    where = np.where(close, image[near], rng.integers(0, images, number))
    score = np.where(close, rng.beta(3, 2, number), rng.beta(1, 6, number)).astype(np.float32).astype(float)
    return objects, DetectionArrays(where, found_label, np.where(close[:, None], moved, anywhere), score)


def records(
    objects: GroundTruthArrays, detections: DetectionArrays, images: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as COCO's own JSON."""
    truth = {
        "images": [{"id": one + 1} for one in range(images)],
        "categories": [{"id": one + 1, "name": str(one)} for one in range(CLASSES)],
        "annotations": [
            {"id": n + 1, "image_id": i + 1, "category_id": c + 1, "bbox": b, "area": a, "iscrowd": int(crowd)}
            for n, (i, c, b, a, crowd) in enumerate(
                zip(
                    objects.image.tolist(),
                    objects.label.tolist(),
                    objects.box.tolist(),
                    objects.area.tolist(),
                    objects.crowd.tolist(),
                    strict=True,
                )
            )
        ],
    }
    rows = zip(
        detections.image.tolist(),
        detections.label.tolist(),
        detections.box.tolist(),
        detections.score.tolist(),
        strict=True,
    )
    return truth, [{"image_id": i + 1, "category_id": c + 1, "bbox": b, "score": s} for i, c, b, s in rows]


def ours(objects: GroundTruthArrays, detections: DetectionArrays, images: int) -> list[float]:
    matches = match_detections([str(label) for label in range(CLASSES)], images, objects, detections)
    figures = summarize(
        {area: precision_recall(matches, area) for area in AREAS}, lambda values: float(values[values > -1].mean())
    )
    return [figures[name] for name in COCO_METRICS]


def theirs(objects: GroundTruthArrays, detections: DetectionArrays, images: int, package: str) -> list[float]:
    truth, results = records(objects, detections, images)
    coco, protocol_of = (getattr(import_module(module), name) for module, name in DROP_INS[package])
    with contextlib.redirect_stdout(io.StringIO()):
        if package == "hotcoco":
            reference = coco(truth)
        else:
            reference = coco()
            reference.dataset = truth
            reference.createIndex()
        protocol = protocol_of(reference, reference.loadRes(results), "bbox")
        protocol.evaluate()
        protocol.accumulate()
        protocol.summarize()
    return [float(value) for value in list(protocol.stats)[:12]]


def by_torchmetrics(objects: GroundTruthArrays, detections: DetectionArrays, images: int) -> list[float]:
    """Batch by batch of 100 images, as tensors."""
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision("xywh")

    def of(image: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        mine, theirs = slice(*np.searchsorted(objects.image, [image, image + 1])), detection_arrays[image]
        truth = {
            "boxes": torch.from_numpy(objects.box[mine]), "labels": torch.from_numpy(objects.label[mine]),
            "area": torch.from_numpy(objects.area[mine]), "iscrowd": torch.from_numpy(objects.crowd[mine].astype(int)),
        }  # fmt: skip
        output = {
            "boxes": torch.from_numpy(detections.box[theirs]), "scores": torch.from_numpy(detections.score[theirs]),
            "labels": torch.from_numpy(detections.label[theirs]),
        }  # fmt: skip
        return output, truth

    order = np.argsort(detections.image, kind="stable")
    detection_arrays = np.split(order, np.searchsorted(detections.image[order], np.arange(1, images)))
    for start in range(0, images, 100):
        pairs = [of(image) for image in range(start, min(start + 100, images))]
        metric.update([output for output, _ in pairs], [truth for _, truth in pairs])
    figures = metric.compute()
    names = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large"]  # fmt: skip
    return [float(figures[name]) for name in names]


def one(package: str, images: int) -> None:
    """In a process of its own."""
    objects, detections = tables(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    work = {"detr_ft": ours, "torchmetrics": by_torchmetrics}.get(package) or partial(theirs, package=package)
    figures = work(objects, detections, images)
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"seconds": seconds, "mebibytes": grown, "figures": figures}))


def installed(package: str) -> bool:
    """Return True if the package is installed, with its dependencies for boxes."""
    needed = {"detr_ft": ["detr_ft"], "torchmetrics": ["torchmetrics", "torchvision", "pycocotools"]}
    return all(find_spec(one) for one in needed.get(package) or [package.replace("-", "_")])


def half_thousand() -> DetectionMatches:
    objects, detections = tables(500)
    return match_detections([str(label) for label in range(CLASSES)], 500, objects, detections)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--only")
    arguments = parser.parse_args()
    if arguments.only:
        one(arguments.only, arguments.images)
        return 0
    tables = Tables(arguments.json)
    tables.begin(
        {
            f"{arguments.images} images, {arguments.images * DETECTIONS:,} detections": "",
            "s": ".2f",
            "times faster": ".1f",
            "memory, MiB": ".0f",
            "furthest from pycocotools": ".1e",
        }
    )
    output = {}
    for package in filter(installed, [*DROP_INS, "torchmetrics", "detr_ft"]):
        command = [sys.executable, "-W", "ignore", __file__, "--images", str(arguments.images), "--only", package]
        output[package] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        seconds = output[package]["seconds"]
        times = output["pycocotools"]["seconds"] / seconds
        apart = max(
            abs(a - b) for a, b in zip(output[package]["figures"], output["pycocotools"]["figures"], strict=True)
        )
        tables.row(package, seconds, times, output[package]["mebibytes"], apart)
    same = output["detr_ft"]["figures"] == output["pycocotools"]["figures"]
    tables.note(f"the twelve figures are {'equal, bit for bit' if same else 'NOT EQUAL'}")
    matches = half_thousand()
    began = time.perf_counter()
    intervals(matches)
    between = time.perf_counter()
    differences(matches, matches)
    tables.note(
        f"intervals of 500 images, 1,000 resamples: {between - began:.1f} s; of a difference: {time.perf_counter() - between:.1f} s"
    )
    return int(not same or output["detr_ft"]["seconds"] > output["pycocotools"]["seconds"] / 7)


if __name__ == "__main__":
    raise SystemExit(main())
