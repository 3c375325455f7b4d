"""Open Images V6 and V7 as published, which the source `csv` reads: tables, class descriptions and a folder for each split."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data

Write = Callable[..., Path]

# Train has the columns of clicks since V6; validation and test have not.
TRAIN = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside,"
    "XClick1X,XClick2X,XClick3X,XClick4X,XClick1Y,XClick2Y,XClick3Y,XClick4Y\n"
    "000002b66c9c498e,xclick,/m/01g317,1,0.250000,0.750000,0.100000,0.500000,0,1,0,0,0,0.01,0.02,0.03,0.04,0.1,0.2,0.3,0.4\n"
    "000002b66c9c498e,activemil,/m/0284d,1,0,1,0,1,-1,-1,1,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1\n"
)
OTHERS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
VALIDATION = OTHERS + "0001eeaf4aed83f9,xclick,/m/0284d,1,0.022673031,0.96420043,0.071038246,0.80054647,0,0,0,0,0\n"
TEST = OTHERS + "000026e7ee790996,freeform,/m/01g317,1,0.071875,0.1453125,0.20625,0.39166668,0,1,1,0,0\n"
CLASSES = "/m/01g317,Person\n/m/0284d,Jaguar (Car)\n/m/011k07,Tortoise\n"


@pytest.fixture
def published(tmp_path: Path, write_image: Write) -> Path:
    files = {
        "oidv6-train-annotations-bbox.csv": TRAIN,
        "validation-annotations-bbox.csv": VALIDATION,
        "test-annotations-bbox.csv": TEST,
        "class-descriptions-boxable.csv": CLASSES,
        # Published beside the boxes: labels of whole images, image addresses, masks.
        "validation-annotations-human-imagelabels-boxable.csv": "ImageID,Source,LabelName,Confidence\na,v,/m/0284d,1\n",
        "train-images-boxable-with-rotation.csv": "ImageID,Subset,OriginalURL,Title,Rotation\na,train,https://x,t,0.0\n",
        "test-annotations-object-segmentation.csv": "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    names = {"train": "000002b66c9c498e", "validation": "0001eeaf4aed83f9", "test": "000026e7ee790996"}
    for seed, (split, name) in enumerate(names.items()):
        write_image(tmp_path / split / f"{name}.jpg", seed=seed)
    return tmp_path


def test_splits_classes_boxes_and_groups(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = load_source_data(str(published))
    assert "recognized as csv:" in caplog.text
    assert data.problems == ()
    assert {split: [Path(row["image"]["path"]).name for row in rows] for split, rows in data.splits.items()} == {
        "train": ["000002b66c9c498e.jpg"],
        "validation": ["0001eeaf4aed83f9.jpg"],
        "test": ["000026e7ee790996.jpg"],
    }
    assert class_names(data.splits["train"]) == ["Jaguar (Car)", "Person"]
    objects = data.splits["train"][0]["objects"]
    assert objects["bbox"] == [pytest.approx([10, 3, 20, 12]), pytest.approx([0, 0, 40, 30])]
    assert objects["category"] == [1, 0]
    assert objects["iscrowd"] == [False, True]  # IsGroupOf
    assert objects["truncated"] == [True, False]  # -1 is unknown
    assert data.splits["test"][0]["objects"]["iscrowd"] == [True]
    box = [0.022673031 * 40, 0.071038246 * 30, (0.96420043 - 0.022673031) * 40, (0.80054647 - 0.071038246) * 30]
    assert data.splits["validation"][0]["objects"]["bbox"] == [pytest.approx(box)]


def test_the_class_descriptions_of_v7(published: Path) -> None:
    (published / "class-descriptions-boxable.csv").unlink()
    (published / "oidv7-class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n" + CLASSES)
    assert class_names(load_data(str(published))["train"]) == ["Jaguar (Car)", "Person"]


def test_tables_below_annotations_and_images_below_images(published: Path) -> None:
    for folder, pattern in (("annotations", "*.csv"), ("images", "t*/"), ("images", "validation/")):
        (published / folder).mkdir(exist_ok=True)
        for path in sorted(published.glob(pattern)):
            path.rename(published / folder / path.name)
    assert set(load_data(str(published))) == {"train", "validation", "test"}


def test_missing_images_and_unreadable_lines(published: Path) -> None:
    file = published / "oidv6-train-annotations-bbox.csv"
    file.write_text(TRAIN + TRAIN.splitlines()[1].replace("0.250000", "x") + "\nffff,xclick\n")
    (published / "test" / "000026e7ee790996.jpg").unlink()
    (published / "test" / "other.jpg").write_bytes((published / "train" / "000002b66c9c498e.jpg").read_bytes())
    (published / "test-annotations-bbox.csv").write_text(
        TEST + TEST.splitlines()[1].replace("000026e7ee790996", "other")
    )
    data = load_source_data(str(published))
    assert [problem.message.partition(": ")[0] for problem in data.refused] == [f"{file}, line 5", f"{file}, line 4"]
    assert Path(data.splits["test"][0]["image"]["path"]).name == "000026e7ee790996"
    with pytest.raises(DefectiveDataError):
        data.checked()
