"""Small data sets on disk, and the real ones where this machine has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from detr_ft.data.schema import detection_features, detection_objects

Write = Callable[..., Path]
Rows = Callable[..., Dataset]


@pytest.fixture
def write_image() -> Write:
    """Writes an image of noise, different for each seed; folders are made."""

    def write(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0, orientation: int = 1) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        exif = Image.Exif()
        if orientation > 1:
            exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, exif=exif)
        return path

    return write


@pytest.fixture
def write_coco_file(write_image: Write) -> Write:
    """Writes a COCO file and its images: two images, boxes of the categories 1 and 7, a category 0 without objects."""

    def write(file: Path, folder: Path | None = None, seed: int = 0, **changes: object) -> Path:
        folder = folder or file.parent
        for index in range(2):
            write_image(folder / f"{seed}_{index}.png", seed=10 * seed + index)
        content = {
            "images": [{"id": 5 + i, "file_name": f"{seed}_{i}.png", "width": 40, "height": 30} for i in range(2)],
            "categories": [{"id": 7, "name": "dog"}, {"id": 0, "name": "root"}, {"id": 1, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 5, "category_id": 7, "bbox": [1, 2, 10.5, 4], "area": 30, "iscrowd": 1},
                {"id": 2, "image_id": 6, "category_id": 1, "bbox": [0, 0, 40, 30]},
            ],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**content, **changes}))
        return file

    return write


@pytest.fixture
def make_rows(tmp_path: Path, write_image: Write) -> Rows:
    """Images of noise, each with its own list of boxes of class 0 (or `labels`), ids from 100, annotations from 1000."""

    def make(
        *boxes: Sequence[Sequence[float]],
        size: tuple[int, int] = (200, 150),
        labels: Sequence[Sequence[int]] | None = None,
        names: Sequence[str] = ("dog",),
        folder: str = "train",
        seed: int = 0,
    ) -> Dataset:
        paths = [
            write_image(tmp_path / folder / f"{place}.png", size, seed=1000 * seed + place)
            for place in range(len(boxes))
        ]
        objects = [
            detection_objects(
                some,
                labels[place] if labels else [0] * len(some),
                ids=range(1000 + 50 * place, 1000 + 50 * place + len(some)),
            )
            for place, some in enumerate(boxes)
        ]
        columns = {
            "image": [{"path": str(path), "bytes": None} for path in paths],
            "image_id": [100 + place for place in range(len(boxes))],
            "width": [size[0]] * len(boxes),
            "height": [size[1]] * len(boxes),
            "objects": objects,
        }
        return Dataset.from_dict(columns, features=detection_features(list(names)))

    return make
