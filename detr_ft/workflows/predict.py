"""Detect objects in image files, and write the results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_ft.data.images import open_image
from detr_ft.data.sources.listing import image_files
from detr_ft.evaluation.detections import coco_results
from detr_ft.inference import Detector
from detr_ft.run_directory import PREDICTIONS
from detr_ft.structures import Detections
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import writing
from detr_ft.utils.progress import track
from detr_ft.workflows.results import check_new_folder
from detr_ft.workflows.splits import ModelLike, PathLike


@dataclass(frozen=True)
class PredictOutcome:
    """The detections above the threshold in each image file, and the names of the classes."""

    files: tuple[Path, ...]
    detections: tuple[Detections, ...]
    names: tuple[str, ...]
    output_dir: Path | None = None

    @property
    def predictions(self) -> Path | None:
        """The file of detections in COCO's results format."""
        return self.output_dir and self.output_dir / PREDICTIONS


def predict(
    model: ModelLike,
    images: PathLike | Sequence[PathLike],
    *,
    output_dir: PathLike | None = None,
    threshold: float | None = None,
    batch_size: int = 8,
) -> PredictOutcome:
    """Detect objects in image files and folders of them.

    A new folder `output_dir` gets `predictions.json` (COCO results, each with its file) and an annotated copy of each image.
    `threshold` is the least score of a detection, by default the model's own for each class. Raises InputError with every
    file that is no image, before the model is loaded.
    """
    files = image_files([images] if isinstance(images, str | os.PathLike) else images)
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        check_new_folder(folder)
    detector = Detector.load(os.fspath(model))
    detections = [
        detector.filter(detected, threshold) for detected in detector.detect(track(files, "detecting"), batch_size)
    ]
    outcome = PredictOutcome(tuple(files), tuple(detections), tuple(detector.names), folder)
    if folder is not None:
        _write(outcome, folder)
    return outcome


def _write(outcome: PredictOutcome, folder: Path) -> None:
    ids, indices = list(range(1, len(outcome.files) + 1)), list(range(len(outcome.names)))
    results = [
        row
        | {
            "category": outcome.names[int(row["category_id"])],
            "file_name": str(outcome.files[int(row["image_id"]) - 1]),
        }
        for row in coco_results(outcome.detections, ids, indices)
    ]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PREDICTIONS).write_text(json.dumps(results, indent=1), encoding="utf-8")
        for number, (file, detected) in enumerate(zip(outcome.files, outcome.detections, strict=True), start=1):
            picture = draw(open_image(file), detected.boxes, detected.labels, list(outcome.names), detected.scores)
            picture.save(folder / f"{number:04d}-{file.stem}.png")
