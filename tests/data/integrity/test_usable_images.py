"""The check before training lists bad images and adapts boxes to the actual files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image
from support.distributed_inspection import SIZES
from support.processes import run_together

from detr_ft.data.generated.generate import generate
from detr_ft.data.integrity.usable_images import InspectedSplit, inspect_splits, with_true_sizes
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.errors import InputError

Rows = Callable[..., Dataset]
BOX = [10.0, 20.0, 30.0, 40.0]
SCRIPT = Path(__file__).parents[2] / "support/distributed_inspection.py"
FORM = ImageFormat({"max_height": 128, "max_width": 128}, (0.0,) * 3, (1.0,) * 3)


def inspected(rows: Dataset, form: ImageFormat = FORM) -> InspectedSplit:
    return inspect_splits({"train": rows}, ["train"], form)["train"]


@pytest.fixture
def changed(make_rows: Rows, tmp_path: Path) -> Dataset:
    """Five images stated as 200x150: as stated, twice as large, turned by EXIF, of another shape, and no image."""
    rows = make_rows(*[[BOX]] * 5, size=(200, 150))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 300), "red").save(tmp_path / "train/1.png")
    Image.new("RGB", (200, 150), "green").save(tmp_path / "train/2.png", exif=exif)
    Image.new("RGB", (200, 200), "blue").save(tmp_path / "train/3.png")
    (tmp_path / "train/4.png").write_bytes(b"no image")
    return rows


def test_rows_have_the_sizes_of_their_files_and_others_are_bad(
    changed: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = inspected(changed)
    assert [(row["width"], row["height"]) for row in found.rows] == [(200, 150), (400, 300), (150, 200)]
    assert [row["objects"]["bbox"] for row in found.rows] == [[BOX], [[20, 40, 60, 80]], [[90, 10, 40, 30]]]
    assert [row["objects"]["area"] for row in found.rows] == [[1200], [4800], [1200]]
    assert found.rows["image_id"][:] == [100, 101, 102]
    assert len(set(found.fingerprints)) == len(found.rows)
    assert ["3.png (image 103): stated 200x150, is 200x200, and it is unclear" in found.bad[0]] == [True]
    assert "4.png: not a readable image" in found.bad[1]
    assert "1 images differ from their annotations: scaled to the true size; first: " in caplog.text
    assert "1 images differ from their annotations: turned upright; first: " in caplog.text
    assert "size as the file has it" not in caplog.text  # of the one that can't be read nothing is known
    assert [row["objects"]["bbox"] for row in changed] == [[BOX]] * 5


def test_a_split_as_it_should_be_is_given_back_as_it_is(make_rows: Rows) -> None:
    rows = make_rows([BOX], [BOX])
    assert inspected(rows).rows is rows
    assert with_true_sizes({"train": rows}, "train") is rows


def test_headers_alone_give_the_same_rows_and_all_problems(changed: Dataset) -> None:
    assert list(with_true_sizes({"train": changed.select(range(3))}, "train")) == list(inspected(changed).rows)
    with pytest.raises(InputError) as caught:
        with_true_sizes({"train": changed}, "train")
    assert [line.partition(": ")[0].rpartition("/")[2] for line in caught.value.problems] == [
        "4.png",
        "3.png (image 103)",
    ]


def test_rows_are_judged_by_their_whole_split(make_rows: Rows, tmp_path: Path) -> None:
    """Stated at half their size, with boxes that fit only the files, but not in the selected rows."""
    rows = make_rows([[300, 200, 80, 80]], [BOX], [BOX], size=(400, 300))
    rows = rows.map(lambda row: {"width": 200, "height": 150}, features=rows.features)
    assert [row["objects"]["bbox"] for row in with_true_sizes({"train": rows}, "train", [1, 2])] == [[BOX], [BOX]]
    assert with_true_sizes({"train": rows.select([1, 2])}, "train")[0]["objects"]["bbox"] == [[20, 40, 60, 80]]
    (tmp_path / "train/0.png").write_bytes(b"no image")
    assert len(with_true_sizes({"train": rows}, "train", [1, 2])) == 2  # images that are not requested may be bad


def test_all_splits_judge(make_rows: Rows) -> None:
    """A small split with boxes that fit both frames follows the large one, used or not."""
    large = make_rows([[300, 200, 80, 80]], [BOX], size=(400, 300))
    small = make_rows([BOX], folder="validation", size=(400, 300))
    data = {
        name: rows.map(lambda row: {"width": 200, "height": 150}, features=rows.features)
        for name, rows in (("train", large), ("validation", small))
    }
    assert with_true_sizes(data, "validation")[0]["objects"]["bbox"] == [BOX]
    assert inspect_splits(data, ["validation"], FORM)["validation"].rows[0]["objects"]["bbox"] == [BOX]
    alone = {"validation": data["validation"]}
    assert with_true_sizes(alone, "validation")[0]["objects"]["bbox"] == [[20, 40, 60, 80]]


def test_an_image_too_thin_for_the_model_is_bad_by_name(make_rows: Rows) -> None:
    rows = make_rows([[10, 0, 30, 2]], size=(3000, 2))
    found = inspected(rows)
    assert len(found.rows) == 0
    assert ["0.png (image 100): an image of 3000x2 pixels is too thin" in found.bad[0]] == [True]
    assert inspected(rows, replace(FORM, size={"max_height": 3000, "max_width": 3000})).rows is rows


@pytest.mark.slow
def test_two_processes_on_cpus_divide_the_images_of_two_splits(tmp_path: Path) -> None:
    """Each process scans half of the images, gets the result for all, and is one of two when an evaluation begins."""
    run_together(str(SCRIPT), str(tmp_path), processes=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["processes"], second["processes"]) == (2, 2)
    assert (first["scanned"], second["scanned"]) == (5, 4)
    assert first["images"] == second["images"] == SIZES["validation"]
    assert first["fingerprints"] == second["fingerprints"]
    alone = inspect_splits(generate("shapes?edge=64&train=5&validation=4"), ["train", "validation"], FORM)
    assert first["fingerprints"] == {name: [one.hex() for one in split.fingerprints] for name, split in alone.items()}


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([[10, 10, 0, 5], [500, 10, 5, 5]], "none of its 2 boxes has an area inside the image"),
        ([[float("nan"), 10, 5, 5], BOX], "1 of its boxes have NaN"),
        ([[1e39, 10, 5, 5]], "1 of its boxes have NaN"),
    ],
)
def test_an_image_whose_boxes_would_be_lost_is_bad(make_rows: Rows, boxes: list[list[float]], reason: str) -> None:
    rows = make_rows([BOX], boxes, [], [[10, 10, 0, 5], BOX])
    found = inspected(rows)
    assert found.rows["image_id"] == [100, 102, 103]
    assert [reason in line for line in found.bad] == [True]
    with pytest.raises(InputError, match=r"1\.png"):
        with_true_sizes({"train": rows}, "train")
    assert len(with_true_sizes({"train": rows}, "train", [0, 2, 3])) == 3
