"""Data sets of small images with given boxes, on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from datasets import Dataset

from detr_ft.data.schema import detection_features, detection_objects

Rows = Callable[..., Dataset]


@pytest.fixture
def make_rows(tmp_path: Path, write_image: Callable[..., Path]) -> Rows:
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
