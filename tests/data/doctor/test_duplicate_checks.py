"""Similar images are reported by group: within a split as a note, across splits as leakage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.data.doctor import examine
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.report.doctor import describe


def frames(folder: Path, *videos_and_numbers: tuple[int, int]) -> Dataset:
    """Frames of videos: the same soft scene, a small bright square wandering over it."""
    folder.mkdir()
    paths = []
    for video, number in videos_and_numbers:
        pixels = np.random.default_rng(video).integers(0, 200, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
        image.paste((255, 255, 255), (5 * number, 20, 5 * number + 10, 30))
        paths.append(folder / f"video{video}-{number:02}.jpg")
        image.save(paths[-1], quality=90 - number)
    columns = {
        "image": [{"path": str(path), "bytes": None} for path in paths],
        "image_id": list(range(len(paths))),
        "width": [320] * len(paths),
        "height": [240] * len(paths),
        "objects": [detection_objects([[5, 5, 50, 50]], [0])] * len(paths),
    }
    return Dataset.from_dict(columns, features=detection_features(["dog"]))


def test_groups_within_and_across_splits(tmp_path: Path) -> None:
    data = DatasetDict(
        {
            "train": frames(tmp_path / "train", (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0), (3, 0)),
            "test": frames(tmp_path / "test", (1, 5), (1, 6), (2, 1), (4, 0)),
        }
    )
    diagnosis = examine(data)
    reported = [(one.kind, one.level, one.split, Path(str(one.image)).name) for one in diagnosis.findings]
    assert reported == [
        ("near duplicate", "info", "train", "video1-00.jpg (image 0)"),
        ("near duplicate", "info", "test", "video1-05.jpg (image 0)"),
        ("leakage", "warning", "test", reported[2][3]),
        ("leakage", "warning", "test", "video2-01.jpg (image 2)"),
    ]
    within, _, first, second = diagnosis.findings
    assert within.message.endswith("video1-03.jpg (image 3) and 1 more")
    assert "in train; in test 1 more look like it" in first.message
    assert second.message == "looks like video2-00.jpg (image 5) in train"
    assert second.like == ("train", 5)
    assert diagnosis.leaked == {"train": 0, "test": 3}
    assert "3 of 4 images of test (75%) are the same as images of train, or look like them" in describe(diagnosis)


def test_exact_copies_are_reported_once(tmp_path: Path) -> None:
    train = frames(tmp_path / "train", (1, 0), (2, 0))
    diagnosis = examine(DatasetDict({"train": train, "test": train.select([0])}))
    assert [(one.kind, one.split) for one in diagnosis.findings] == [("leakage", "test")]
    assert diagnosis.findings[0].message.startswith("the same bytes as ")
    assert diagnosis.leaked == {"train": 0, "test": 1}
