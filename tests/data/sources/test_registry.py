"""The list of sources: specifications, bare paths, mistakes, help.

`python tests/data/sources/test_registry.py` writes the table of docs/data.md.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.json_files import json_tool
from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.problems import raise_all
from detr_ft.data.sources.registry import SOURCES, box_format_help, check_spec, data_help, sources_table
from detr_ft.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/data.md"
MARKERS = ("<!-- sources: python tests/data/sources/test_registry.py -->", "<!-- end of sources -->")
IN_COMMAND = [source for source in SOURCES if not source.streamed]


def with_table(page: str) -> str:
    """A page with the table between its markers renewed."""
    before, _, rest = page.partition(MARKERS[0])
    return f"{before}{MARKERS[0]}\n\n{sources_table()}\n\n{MARKERS[1]}{rest.partition(MARKERS[1])[2]}"


def test_the_page_on_data_has_the_table_of_the_list() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python tests/data/sources/test_registry.py"


def test_names_are_unique_and_help_is_short() -> None:
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert all(0 < len(source.help) < 60 for source in SOURCES)


def test_every_source_of_the_command_is_in_its_help_and_in_the_table() -> None:
    table = sources_table().splitlines()
    assert len(table) == 2 + len(IN_COMMAND)
    for source in IN_COMMAND:
        assert source.usage in data_help()
        assert any(f"`{source.usage}`" in row and source.help in row for row in table)
        assert (f"{source.name}:" in box_format_help()) == source.takes_box_format
    assert "stream:" not in data_help() + box_format_help() + sources_table()


def test_the_list_is_imported_without_reading_libraries() -> None:
    code = (
        "import sys, detr_ft.data.sources.registry; print({'numpy', 'datasets', 'torch', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_relative_paths_start_at_the_base(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    write_coco_file(tmp_path / "sets" / "a.json")
    assert len(load_data("coco:sets/a.json", base=tmp_path)["train"]) == 2
    assert len(load_data("sets/a.json", base=tmp_path)["train"]) == 2
    path = load_data("sets", base=tmp_path)["train"][0]["image"]["path"]
    assert Path(path).is_absolute()


def test_the_recognized_source_of_a_bare_path_is_logged(
    tmp_path: Path, write_coco_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_coco_file(tmp_path / "train" / "_annotations.coco.json")
    with caplog.at_level(logging.INFO):
        load_data(str(tmp_path))
    assert f"{tmp_path}: recognized as coco:" in caplog.text


def test_generated_data_have_options() -> None:
    data = load_data("generated:shapes?train=2&validation=1&edge=64")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 1}
    assert len(class_names(data["train"])) > 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cocoo:x.json", "Did you mean coco:x.json"),
        ("xyz:x.json", "'xyz', must be one of coco, csv, cvat, .*, voc, webdataset, yolo"),
        ("coco:", "nothing follows the colon"),
        ("coco:chess_picees", "Did you mean .*chess_pieces"),
        ("chess_picees/a/b.json", "Did you mean .*chess_pieces"),
        ("nothing_like_it", "no such file or folder"),
        ("chess_pieces", "not recognized.*coco:PATH"),
        ("notes.txt", "not recognized.*coco:PATH"),
    ],
)
def test_mistakes_are_reported_with_a_remedy(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "chess_pieces").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=message):
        load_data(spec, base=tmp_path)


def test_a_specification_is_checked_without_reading(tmp_path: Path) -> None:
    (tmp_path / "data.json").touch()
    for spec in ("coco:data.json", "data.json", "hub:owner/name", "generated:shapes"):
        check_spec(spec, tmp_path)
    hints = {"coco:dota.json": "data.json?", "dota.json": "data.json?", "cocoo:x": "coco:x?", "hub:": "hub:NAME"}
    for spec, hint in hints.items():
        with pytest.raises(InputError, match=re.escape(hint)):
            check_spec(spec, tmp_path)


def test_equal_problems_are_counted_exactly() -> None:
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
        ("a.json", '{"info": {"a": [1]}, "images": [], "annotations": []}', "coco"),
        ("a.json", '\ufeff {"version": "5", "flags": {}, "shapes": [{"label": "images"}]}', "labelme"),
        ("a.json", '\n [{"id": 1, "data": {}}]', "labelstudio"),
        ("a.xml", "<annotations></annotations>", "cvat"),
    ],
)
def test_a_bare_file_is_recognized_by_its_contents(
    tmp_path: Path, name: str, text: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with caplog.at_level(logging.INFO), pytest.raises(InputError):
        load_data(str(tmp_path / name))
    assert f"recognized as {kind}:" in caplog.text


def test_a_folder_with_an_export_of_label_studio_is_recognized(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "project-3-at-2026-11-20.json").write_text('[{"id": 1, "data": {}}]')
    with caplog.at_level(logging.INFO), pytest.raises(InputError):
        load_data(str(tmp_path))
    assert "recognized as labelstudio:" in caplog.text


def test_a_large_file_is_recognized_by_its_beginning(tmp_path: Path) -> None:
    padding = "x" * 200_000
    (tmp_path / "late.json").write_text(f'{{"imageData": "{padding}", "shapes": []}}')
    assert json_tool(tmp_path / "late.json") == "labelme"
    (tmp_path / "list.json").write_bytes(b"[" + b"\xff" * 10)
    assert json_tool(tmp_path / "list.json") == "labelstudio"
    # JSON-MIN has the regions at the name of the control.
    (tmp_path / "min.json").write_text('[{"image": "a.jpg", "bbox": [{"x": 1, "y": 2}]}]')
    assert json_tool(tmp_path / "min.json") == "labelstudio"
    (tmp_path / "labelme.json").write_bytes('{"version": "5", "shapes": []}'.encode("utf-16"))
    assert json_tool(tmp_path / "labelme.json") == "labelme"


def test_a_recipe_beside_the_data_is_no_data(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.png,cat,3,4,20,20\n")
    (tmp_path / "recipe.yaml").write_text("model: {checkpoint: x}\ndata: {source: .}\ntrain: {output_dir: runs/x}\n")
    assert class_names(load_data(str(tmp_path))["train"]) == ["cat"]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
