"""Specifications of data: kinds, bare paths, and mistakes in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data import class_names, load_data
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.json_files import json_tool
from detr_ft.data.sources.listing import split_of
from detr_ft.errors import InputError


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
        ("xyz:x.json", "unknown kind of data 'xyz'; known are coco, csv, cvat, .*, voc, yolo"),
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
    with pytest.raises(InputError, match=message):
        load_data(spec, base=tmp_path)


def test_equal_problems_are_counted_and_the_number_stays_exact() -> None:
    rows = [f"a{i}.xml: object {i} has no name" for i in range(9)]
    boxes = [f"a b.txt, line {i}: class {i} isn't among 'x {i}'" for i in range(4)]
    with pytest.raises(InputError) as caught:
        raise_all([*rows, "one of its kind", *boxes])
    rest = ["... and 6 more like the one above", "one of its kind", *boxes[:3], "... and 1 more like the one above"]
    assert caught.value.problems == [*rows[:3], *rest]
    letters = "abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(InputError) as caught:
        raise_all([f"x: {one}{two}" for one in letters for two in letters for _ in range(9)], limit=10)
    assert caught.value.problems[7] == "... and 6 more like the one above"
    assert caught.value.problems[-1] == f"... and {26 * 26 * 9 - 20} more problems"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", '{"info": {"a": [1]}, "images": [], "annotations": []}', "COCO"),
        ("a.json", '\ufeff {"version": "5", "flags": {}, "shapes": [{"label": "images"}]}', "LABELME"),
        ("a.json", '\n [{"id": 1, "data": {}}]', "LABELSTUDIO"),
        ("a.xml", "<annotations></annotations>", "CVAT"),
    ],
)
def test_a_bare_file_is_recognised_by_what_it_holds(
    tmp_path: Path, name: str, text: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with caplog.at_level(logging.INFO), pytest.raises(InputError):
        load_data(str(tmp_path / name))
    assert f"looks like {kind}:" in caplog.text


def test_a_folder_with_an_export_of_label_studio_is_recognised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "project-3-at-2026-11-20.json").write_text('[{"id": 1, "data": {}}]')
    with caplog.at_level(logging.INFO), pytest.raises(InputError):
        load_data(str(tmp_path))
    assert "looks like LABELSTUDIO:" in caplog.text


def test_a_large_file_is_recognised_by_its_beginning(tmp_path: Path) -> None:
    padding = "x" * 200_000
    (tmp_path / "late.json").write_text(f'{{"imageData": "{padding}", "shapes": []}}')
    assert json_tool(tmp_path / "late.json") == "labelme"
    (tmp_path / "list.json").write_bytes(b"[" + b"\xff" * 10)
    assert json_tool(tmp_path / "list.json") == "labelstudio"


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


def test_a_recipe_beside_the_data_is_no_data(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.png,cat,3,4,20,20\n")
    (tmp_path / "recipe.yaml").write_text("model: {checkpoint: x}\ndata: {source: .}\ntrain: {output_dir: runs/x}\n")
    assert class_names(load_data(str(tmp_path))["train"]) == ["cat"]
