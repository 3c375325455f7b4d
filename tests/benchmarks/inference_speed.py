"""Detections of a folder beside the pipeline of transformers.   python tests/benchmarks/inference_speed.py [--onnx FOLDER]

The embedded model, JPEG files of four shapes, from the files on. The pipeline is `pipeline("object-detection")` as it
comes and with batches; ours is `Detector.detect`, and with --onnx `OnnxDetector.detect` on what
`detr-ft export --to onnx` wrote. In turn, in rounds; medians of the ratios. The same detections above 0.5 are asserted:
class, score to 1e-3, box to the pixel that the pipeline cuts it to. Status 1 where the bar is missed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tables import Tables, parser_of
from transformers import pipeline

from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.inference import Detector, OnnxDetector

BAR = 2.0
SHAPES = [(320, 240), (240, 320), (300, 300), (400, 225)]
Result = list[list[tuple[str, float, tuple[float, ...]]]]


def write_images(folder: Path, number: int) -> list[str]:
    """Generated scenes, stretched to the shapes in turn."""
    files = []
    for place, row in enumerate(generate(f"shapes?train=0&validation=0&test={number}&seed=9")["test"]):
        files.append(str(folder / f"{place:04}.jpg"))
        open_image(row["image"]).resize(SHAPES[place % len(SHAPES)]).save(files[-1], quality=92)
    return files


def by_pipeline(requested: Any, batch_size: int, files: list[str]) -> Result:
    results = requested(files, threshold=0.5, batch_size=batch_size)
    return [
        [(one["label"], one["score"], tuple(one["box"][side] for side in ("xmin", "ymin", "xmax", "ymax"))) for one in result]
        for result in results
    ]  # fmt: skip


def by_detector(detector: Detector | OnnxDetector, files: list[str]) -> Result:
    return [
        [
            (detector.names[label], score, tuple(box))
            for box, score, label in zip(one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True)
        ]
        for one in (found.above(0.5) for found in detector.detect(files))
    ]


def same(one: Result, other: Result) -> None:
    """Raise where two results differ."""
    for first, second in zip(one, other, strict=True):
        pairs = list(
            zip(sorted(first, key=lambda each: -each[1]), sorted(second, key=lambda each: -each[1]), strict=True)
        )
        assert all(a[0] == b[0] and abs(a[1] - b[1]) < 1e-3 for a, b in pairs), pairs
        # The pipeline cuts boxes to whole pixels.
        assert all(abs(x - y) < 1.01 for a, b in pairs for x, y in zip(a[2], b[2], strict=True)), pairs


def seconds(work: Callable[[list[str]], Result], files: list[str]) -> float:
    began = time.perf_counter()
    work(files)
    return time.perf_counter() - began


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--onnx", type=Path, help="the folder that `detr-ft export embedded:small --to onnx` wrote")
    arguments = parser.parse_args()
    if arguments.onnx and not arguments.onnx.is_dir():
        parser.error(f"--onnx {arguments.onnx}: there is no such folder")
    detector = Detector.load("embedded:small")
    with tempfile.TemporaryDirectory() as name:
        files = write_images(Path(name), arguments.images)
        detector.model.save_pretrained(f"{name}/model")
        detector.processor.save_pretrained(f"{name}/model")
        requested = pipeline("object-detection", model=f"{name}/model", image_processor=detector.processor)
        ways: dict[str, Callable[[list[str]], Result]] = {
            "pipeline": partial(by_pipeline, requested, 1),
            "pipeline, batches of 8": partial(by_pipeline, requested, 8),
            "Detector": partial(by_detector, detector),
        }
        if arguments.onnx:
            ways["ONNX Runtime"] = partial(by_detector, OnnxDetector.load(str(arguments.onnx)))
        results = {name: work(files) for name, work in ways.items()}
        for name in ways:
            same(results["pipeline"], results[name])
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, work in ways.items():
                spent[name].append(seconds(work, files))
    ratios = {
        name: statistics.median(a / b for a, b in zip(spent["pipeline"], times, strict=True))
        for name, times in spent.items()
    }
    tables = Tables(arguments.json)
    tables.begin({f"{len(files)} JPEG files of four shapes": "", "images/s": ".1f", "times the pipeline": ".2f"})
    for name, times in spent.items():
        tables.row(name, len(files) / statistics.median(times), ratios[name])
    return int(ratios["Detector"] < BAR)


if __name__ == "__main__":
    sys.exit(main())
