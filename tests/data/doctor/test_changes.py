"""Warnings for a repaired copy that lacks much of its data set, with the reasons."""

from __future__ import annotations

from pathlib import Path

from datasets import DatasetDict
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.data.doctor import repair_data, scan_dataset
from detr_ft.data.doctor.changes import left_out_warnings
from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data

BOX, THIN = [1.0, 2.0, 30.0, 20.0], [1.0, 2.0, 0.0, 20.0]


def warnings_of(data: DatasetDict) -> list[str]:
    return list(left_out_warnings(data, repair_data(data, scan_dataset(data))))


def test_images_boxes_and_splits_are_counted_with_the_reasons(make_rows, tmp_path: Path) -> None:
    data = DatasetDict({"train": make_rows([BOX, THIN], [BOX], [BOX] * 3), "test": make_rows([BOX], folder="test")})
    (tmp_path / "train/1.png").unlink()
    (tmp_path / "test/0.png").write_bytes(b"no image")
    assert warnings_of(data) == [
        "WARNING: 2 of 4 images (50%) are left out of the repaired copy: missing file 1, unreadable 1",
        "WARNING: 5 of 7 boxes (71%) are left out of the repaired copy: duplicate box 2, with their images 2, zero size 1",
        "WARNING: no image of test is left: the repaired copy does not have this split",
    ]


def test_a_tenth_is_no_news(make_rows, tmp_path: Path) -> None:
    ten = make_rows(*[[BOX]] * 9, [BOX])
    (tmp_path / "train/3.png").unlink()
    assert warnings_of(DatasetDict({"train": ten})) == []
    assert len(warnings_of(DatasetDict({"train": ten.select(range(9))}))) == 2


def test_the_command_warns_of_it(tmp_path: Path) -> None:
    write_coco(load_data("generated:shapes?train=4&validation=0&edge=64"), tmp_path / "data")
    for name in ("000000.png", "000001.png"):
        (tmp_path / "data/train" / name).write_bytes(b"no image")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "data"), "--fix", str(tmp_path / "out")])
    assert "WARNING: 2 of 4 images (50%) are left out of the repaired copy: unreadable 2" in done.stderr.splitlines()
