"""Detect objects in image files and write the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from detr_ft.data import open_image
from detr_ft.data.sources.listing import images_in
from detr_ft.errors import InputError
from detr_ft.evaluation.coco_results import coco_results
from detr_ft.inference import Detector
from detr_ft.run_directory import PREDICTIONS
from detr_ft.utils.drawing import draw
from detr_ft.utils.files import check_new_folder, writing
from detr_ft.utils.progress import console, say


def predict_files(model: str, paths: Sequence[Path], out: Path, threshold: float | None, batch_size: int) -> None:
    """Write `predictions.json` (COCO results, each with its file) and an annotated copy of each image into a new folder.

    Without a threshold each class has the model's own.

    Raises InputError for what is no image, all at once, before the model is run, and for a folder that holds something.
    """
    files = _image_files(paths)
    check_new_folder(out, "Choose another folder with --out.")
    detector = Detector.load(model)
    found = [
        detector.filter(one, threshold)
        for one in detector.detect(track(files, "detecting", console=console, transient=True), batch_size)
    ]
    ids = list(range(1, len(files) + 1))
    results = [
        row | {"category": detector.names[int(row["category_id"])], "file_name": str(files[int(row["image_id"]) - 1])}
        for row in coco_results(found, ids, list(range(len(detector.names))))
    ]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / PREDICTIONS).write_text(json.dumps(results, indent=1), encoding="utf-8")
        for number, (file, one) in enumerate(zip(files, found, strict=True), start=1):
            picture = draw(open_image(file), one.boxes, one.labels, detector.names, one.scores)
            picture.save(out / f"{number:04d}-{file.stem}.png")
    say(f"{len(results)} boxes in {len(files)} images: {out / PREDICTIONS} and a picture of each image beside it")


def _image_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    problems = []
    for path in paths:
        if path.is_dir():
            inside = images_in(path)
            files += inside
            if not inside:
                problems.append(f"{path}: this folder holds no images")
        elif path.is_file():
            files.append(path)
        else:
            problems.append(f"{path}: no such file or folder")
    for file in files:
        try:
            open_image(file)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return files
