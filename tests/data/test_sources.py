"""Specifications of data: kinds, bare paths, and mistakes in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data import class_names, load_data
from detr_ft.data.sources.records import split_of
from detr_ft.errors import UserError


def test_relative_paths_start_at_the_base(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    write_coco_file(tmp_path / "sets" / "a.json")
    assert len(load_data("coco:sets/a.json", base=tmp_path)["train"]) == 2
    assert len(load_data("sets/a.json", base=tmp_path)["train"]) == 2
    path = load_data("sets", base=tmp_path)["train"][0]["image"]["path"]
    assert Path(path).is_absolute()


def test_the_guess_for_a_bare_path_is_told(
    tmp_path: Path, write_coco_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_coco_file(tmp_path / "train" / "_annotations.coco.json")
    with caplog.at_level(logging.INFO):
        load_data(str(tmp_path))
    assert "looks like COCO" in caplog.text


def test_generated_data_takes_what_follows_the_colon() -> None:
    data = load_data("generated:shapes?train=2&validation=1&edge=64")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 1}
    assert len(class_names(data["train"])) > 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cocoo:x.json", "did you mean coco:x.json"),
        (
            "xyz:x.json",
            "unknown kind of data 'xyz'; known are coco, csv, folder, generated, hub, parquet, saved, stream, voc, yolo",
        ),
        ("coco:", "nothing follows the colon"),
        ("coco:chess_picees", "did you mean .*chess_pieces"),
        ("chess_picees/a/b.json", "did you mean .*chess_pieces"),
        ("nothing_like_it", "no such file or folder"),
        ("chess_pieces", "its format isn't recognised"),
        ("notes.txt", "its format isn't recognised"),
    ],
)
def test_mistakes_are_told_with_what_to_do(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "chess_pieces").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=message):
        load_data(spec, base=tmp_path)


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("valid", "validation"),
        ("instances_val2017", "validation"),
        ("Train", "train"),
        ("test-dev", "test"),
        ("latest", None),
    ],
)
def test_split_names(word: str, split: str | None) -> None:
    assert split_of(word) == split
