"""Detections that other tools wrote: by names or ids as text, as a COCO file, of other images, classes and box formats."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.errors import InputError
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.workflows.evaluate import evaluate
from detr_ft.workflows.predictions_file import read_predictions, write_predictions

Row = dict[str, Any]

NAMES = ("square", "disc")
NUMBERS = {1: "square", 2: "disc"}
FOLDERS = ("a", "a", "b", "b")
FILES = [f"/data/{folder}/frame_{row:03}.jpg" for row, folder in enumerate(FOLDERS)]
IDS = [10, 11, 12, 13]
BOXES = [[[5.0 + row, 10.0, 30.0, 40.0], [60.0, 50.0 + row, 50.0, 30.0]] for row in range(4)]


class Messages(logging.Handler):
    """Collects messages of the package, whatever the command did to its loggers before."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.by_level: dict[str, list[str]] = {"INFO": [], "WARNING": []}

    def emit(self, record: logging.LogRecord) -> None:
        self.by_level[record.levelname].append(record.getMessage())

    @property
    def warnings(self) -> list[str]:
        return self.by_level["WARNING"]

    @property
    def notes(self) -> list[str]:
        return self.by_level["INFO"]


@pytest.fixture
def messages() -> Iterator[Messages]:
    handler, logger = Messages(), logging.getLogger("detr_ft")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(before)
    logger.removeHandler(handler)


@pytest.fixture
def split() -> Dataset:
    columns = {
        "image": [{"path": file, "bytes": None} for file in FILES],
        "image_id": IDS,
        "width": [160] * 4,
        "height": [120] * 4,
        "objects": [detection_objects(boxes, [0, 1]) for boxes in BOXES],
    }
    return Dataset.from_dict(columns, features=detection_features(list(NAMES)))


def correct(**changes: Any) -> list[Row]:
    """A correct result for every object, with changed keys: functions of the row of the image and the index of the class."""
    rows = []
    for row, boxes in enumerate(BOXES):
        for label, box in enumerate(boxes):
            result = {"image_id": IDS[row], "category_id": label + 1, "bbox": box, "score": 0.9}
            for key, change in changes.items():
                value = change(row, label) if callable(change) else change
                if value is None:
                    result.pop(key, None)
                else:
                    result[key] = value
            rows.append(result)
    return rows


def write(folder: Path, content: Any) -> Path:
    file = folder / "other.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def mean_ap(split: Dataset, file: Path, numbers: dict[int, str] = NUMBERS) -> float | None:
    value = coco_metrics(split, read_predictions(file, split, numbers))["map"]
    return None if value is None else round(value, 6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_id": lambda row, label: str(IDS[row])},
        {"image_id": lambda row, label: float(IDS[row])},
        {"image_id": lambda row, label: Path(FILES[row]).stem},
        {"image_id": lambda row, label: Path(FILES[row]).name},
        {"image_id": lambda row, label: f"{FOLDERS[row]}/{Path(FILES[row]).stem}"},
        {"image_id": None, "file_name": lambda row, label: FILES[row]},
        {"image_id": 99, "file_name": lambda row, label: f"elsewhere/{Path(FILES[row]).name}"},
        {
            "image_id": lambda row, label: IDS[row - 1],
            "file_name": lambda row, label: FILES[row],
        },  # the name has priority
        {"category_id": lambda row, label: str(label + 1)},
        {"category_id": lambda row, label: NAMES[label]},
        {"category_id": None, "category": lambda row, label: NAMES[label]},
        {"category_id": 7, "category": lambda row, label: NAMES[label]},
    ],
)
def test_images_and_classes_are_matched(
    tmp_path: Path, split: Dataset, messages: Messages, changes: dict[str, Any]
) -> None:
    assert mean_ap(split, write(tmp_path, correct(**changes))) == 1
    assert messages.warnings == []


def test_ids_that_are_names_are_reported(tmp_path: Path, split: Dataset, messages: Messages) -> None:
    mean_ap(split, write(tmp_path, correct(image_id=lambda row, label: Path(FILES[row]).stem)))
    (note,) = messages.notes
    assert "'frame_000'" in note
    assert FILES[0] in note


def test_numbers_in_names_are_ids_where_the_data_have_others(
    tmp_path: Path, split: Dataset, messages: Messages
) -> None:
    """Ultralytics writes the number in a name; the data count their images from 0."""
    names = ["/data/000139.jpg", "/data/000285.jpg", "/data/000632.jpg", "/data/000724.jpg"]
    rows = [dict(row, image={"path": name, "bytes": None}, image_id=i) for i, (row, name) in enumerate(zip(split, names, strict=True))]  # fmt: skip
    numbered = Dataset.from_list(rows, features=split.features)
    file = write(tmp_path, correct(image_id=lambda row, label: int(Path(names[row]).stem)))
    assert mean_ap(numbered, file) == 1
    assert "139" in messages.notes[0]


def test_ids_that_may_be_names_of_other_images_are_warned_of(
    tmp_path: Path, split: Dataset, messages: Messages
) -> None:
    rows = [dict(row, image={"path": f"/data/{3 - i}.jpg", "bytes": None}, image_id=i) for i, row in enumerate(split)]
    reversed_names = Dataset.from_list(rows, features=split.features)
    file = write(tmp_path, correct(image_id=lambda row, label: row))
    assert mean_ap(reversed_names, file) == 1
    (warning,) = messages.warnings
    assert "file_name" in warning


def test_a_coco_file_with_scores_is_read(tmp_path: Path, split: Dataset, messages: Messages) -> None:
    content = {
        "images": [{"id": f"i{row}", "file_name": Path(name).name} for row, name in enumerate(FILES)],
        "categories": [{"id": 0, "name": "disc"}, {"id": 1, "name": "square"}],
        "annotations": correct(image_id=lambda row, label: f"i{row}", category_id=lambda row, label: 1 - label),
    }
    assert mean_ap(split, write(tmp_path, content)) == 1
    assert messages.warnings == []


def test_other_images_and_classes_are_counted(tmp_path: Path, split: Dataset, messages: Messages) -> None:
    rows = correct(category=lambda row, label: NAMES[label])[2:]
    rows += [{**rows[0], "image_id": number} for number in (500, 501, 501)]
    rows += [{**rows[0], "category": "yeti"}]
    detections = read_predictions(write(tmp_path, rows), split, NUMBERS)
    assert [len(image) for image in detections] == [0, 2, 2, 2]
    classes, images = messages.warnings
    assert "yeti" in classes
    assert "2 images" in images
    assert "500" in images
    assert "1 of the 4 images" in messages.notes[0]


def test_an_ambiguous_name_is_an_error_that_names_both(tmp_path: Path, split: Dataset) -> None:
    rows = [dict(row, image={"path": f"/data/{i}/photo.jpg", "bytes": None}) for i, row in enumerate(split)]
    same_names = Dataset.from_list(rows, features=split.features)
    with pytest.raises(InputError, match=r"photo\.jpg.*/data/0/photo\.jpg or /data/1/photo\.jpg"):
        read_predictions(write(tmp_path, correct(file_name="photo.jpg")), same_names, NUMBERS)
    file = write(tmp_path, correct(file_name=lambda row, label: f"x/{row}/photo.jpg"))
    assert mean_ap(same_names, file) == 1


def test_a_file_of_other_images_is_an_error(tmp_path: Path, split: Dataset) -> None:
    with pytest.raises(
        InputError, match=r"no image with the file name x\.jpg; one of theirs is /data/a/frame_000\.jpg"
    ):
        read_predictions(write(tmp_path, correct(file_name="x.jpg")), split, NUMBERS)
    with pytest.raises(InputError, match="no image with the id 'x'"):
        read_predictions(write(tmp_path, correct(image_id="x")), split, NUMBERS)


def test_ids_of_classes_from_0_are_an_error_with_the_remedy(tmp_path: Path, split: Dataset) -> None:
    file = write(tmp_path, correct(category_id=lambda row, label: label))
    with pytest.raises(InputError, match=r"1 square, 2 disc.*got 0.*start at 0.*at 1\. Add 1"):
        read_predictions(file, split, NUMBERS)
    file = write(tmp_path, correct(category_id=lambda row, label: label + 1))
    with pytest.raises(InputError, match=r"0 square, 1 disc.*got 2.*start at 1.*at 0\. Subtract 1"):
        read_predictions(file, split, {})


def test_positions_in_a_list_of_classes_with_gaps_are_an_error_with_the_remedy(tmp_path: Path, split: Dataset) -> None:
    """COCO's 80 classes have ids up to 90."""
    file = write(tmp_path, correct(category_id=lambda row, label: label))
    with pytest.raises(InputError, match=r"got 0\. .*positions.*replace 0 by 4"):
        read_predictions(file, split, {4: "square", 9: "disc"})


def test_ids_of_classes_from_0_are_warned_of_where_the_data_have_an_unused_0(
    tmp_path: Path, split: Dataset, messages: Messages
) -> None:
    """Roboflow writes a category 0 that no object has."""
    file = write(tmp_path, correct(category_id=lambda row, label: label))
    read_predictions(file, split, {0: "shapes", **NUMBERS})
    assert any("Add 1" in warning for warning in messages.warnings)


def test_ids_of_the_data_are_no_mistake(tmp_path: Path, split: Dataset, messages: Messages) -> None:
    read_predictions(write(tmp_path, correct()[::2]), split, {0: "shapes", **NUMBERS})  # of class 1 alone
    assert messages.warnings == []


@pytest.mark.parametrize(
    ("convert", "format"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "xyxy in pixels"),
        (lambda x, y, w, h: [x / 160, y / 120, w / 160, h / 120], "xywh in fractions"),
        (lambda x, y, w, h: [(x + w / 2) / 160, (y + h / 2) / 120, w / 160, h / 120], "cxcywh in fractions"),
    ],
)
def test_boxes_in_another_format_are_warned_of(
    tmp_path: Path, split: Dataset, messages: Messages, convert: Any, format: str
) -> None:
    read_predictions(write(tmp_path, correct(bbox=lambda row, label: convert(*BOXES[row][label]))), split, NUMBERS)
    (warning,) = messages.warnings
    assert format in warning


def test_written_predictions_have_names_that_identify_their_rows(tmp_path: Path, split: Dataset) -> None:
    detections = read_predictions(write(tmp_path, correct()), split, NUMBERS)
    write_predictions(tmp_path / "own.json", split, detections, NUMBERS)
    rows = json.loads((tmp_path / "own.json").read_text())
    assert {row["file_name"] for row in rows} == {name.removeprefix("/") for name in FILES}
    # The data count their images in another order now.
    renumbered = split.select([3, 1, 0, 2])
    renumbered = Dataset.from_list([dict(row, image_id=i) for i, row in enumerate(renumbered)], features=split.features)
    assert mean_ap(renumbered, tmp_path / "own.json") == 1


def test_evaluate_matches_by_name(tmp_path: Path) -> None:
    """The images of the case predict_then_evaluate_ids: numbered from 1, with names."""
    from PIL import Image

    paths = [tmp_path / f"t{row}.png" for row in range(4)]
    for path in paths:
        Image.new("RGB", (160, 120)).save(path)
    columns = {
        "image": [{"path": str(path), "bytes": None} for path in paths],
        "image_id": list(range(4)),
        "width": [160] * 4,
        "height": [120] * 4,
        "objects": [detection_objects(boxes, [0, 1]) for boxes in BOXES],
    }
    data = DatasetDict(train=Dataset.from_dict(columns, features=detection_features(list(NAMES))))
    rows = correct(
        image_id=lambda row, label: row + 1,
        category_id=lambda row, label: label,
        file_name=lambda row, label: f"photos/t{row}.png",
    )
    outcome = evaluate(data=data, from_predictions=write(tmp_path, rows))
    assert outcome.metrics.map == pytest.approx(1)
