"""Regions and annotations of Label Studio that are damaged, or that others replace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.labelstudio_tasks import annotation, rectangle, region, task, write

from detr_ft.data.sources.load import load_source_data

LOST_SHAPES = {
    "no x": [region("rectanglelabels", {"y": 0, "rotation": 0, "rectanglelabels": ["dog"]})],
    "no labels either": [region("rectanglelabels", {"y": 0})],
    "no type": [{"id": "a", "value": {"y": 0, "rectanglelabels": ["dog"]}}],
    "no value": [{"id": "a", "type": "rectanglelabels"}],
    "nothing": [{}],
    "list as value": [{**rectangle("dog", 0, 0, 9, 9), "value": [{"x": 0}]}],
    "text as value": [{**rectangle("dog", 0, 0, 9, 9), "value": "x"}],
    "text as region": [json.dumps(rectangle("dog", 0, 0, 9, 9))],
    "unreadable rotation": [rectangle("dog", 0, 0, 9, 9, rotation="90,0")],  # type: ignore[arg-type]
    "mapping as result": {"0": rectangle("dog", 0, 0, 9, 9)},
    "no result": None,
}


@pytest.mark.parametrize("name", LOST_SHAPES)
def test_a_region_that_lost_its_shape_is_a_problem_of_its_image(
    tmp_path: Path, write_image: Callable[..., Path], name: str
) -> None:
    for seed, file in enumerate(("a.png", "b.png")):
        write_image(tmp_path / file, seed=seed)
    tasks = [task(1, "a.png", annotation(1, rectangle("cat", 0, 0, 9, 9))), task(2, "b.png", annotation(1))]
    tasks[1]["annotations"][0]["result"] = LOST_SHAPES[name]  # type: ignore[index]
    data = load_source_data(f"labelstudio:{write(tmp_path / 'a.json', tasks)}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [1, 0]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 1)]
    assert data.problems[0].message.startswith(f"{tmp_path / 'a.json'}: task 2: ")


def test_regions_of_texts_relations_and_choices_are_left_out(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    others = [
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        region("choices", {"choices": ["sharp"]}),
        region("labels", {"start": 3, "end": 9, "text": "dog", "labels": ["word"]}),
    ]
    file = write(tmp_path / "a.json", [task(1, "a.png", annotation(1, rectangle("dog", 0, 0, 9, 9), *others))])
    data = load_source_data(f"labelstudio:{file}")
    assert (len(data.splits["train"]["objects"][0]["bbox"]), data.problems) == (1, ())


@pytest.mark.parametrize("damaged", ["none", ["text"], [{"y": 3, "rectanglelabels": ["dog"]}]])
def test_a_damaged_region_of_json_min_is_a_problem_of_its_image(
    tmp_path: Path, write_image: Callable[..., Path], damaged: object
) -> None:
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        write_image(tmp_path / name, seed=seed)
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["dog"]}
    rows = [
        {"image": "a.png", "id": 1, "annotation_id": 1, "label": [value], "tags": ["sharp"]},
        {"image": "b.png", "id": 2, "annotation_id": 2, "label": damaged},
        {"image": "c.png", "id": 3, "annotation_id": 3},
    ]
    data = load_source_data(f"labelstudio:{write(tmp_path / 'a.json', rows)}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [1, 0, 0]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 1)]


def test_an_empty_annotation_that_is_newer_than_one_with_objects_is_reported(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for seed, name in enumerate("abcd"):
        write_image(tmp_path / f"{name}.png", seed=seed)
    two = annotation(1, rectangle("dog", 0, 0, 9, 9), rectangle("cat", 0, 0, 9, 9))
    tasks = [
        task(1, "a.png", two, annotation(2)),
        task(2, "b.png", annotation(1), annotation(2, rectangle("dog", 0, 0, 9, 9))),
        task(3, "c.png", {**two, "was_cancelled": True}, annotation(2)),
        task(4, "d.png", annotation(1), annotation(2)),
    ]
    data = load_source_data(f"labelstudio:{write(tmp_path / 'a.json', tasks)}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [0, 1, 0, 0]
    assert [(one.kind, one.count, one.refused) for one in data.problems] == [("lost annotation", 2, False)]
    assert "task 1: the newest annotation has no objects and is used, an older one has 2" in data.problems[0].message


def test_annotations_that_are_no_list_are_refused(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    one = annotation(1, rectangle("dog", 0, 0, 9, 9))
    lost = [{**task(number, "a.png"), "annotations": value} for number, value in ((2, {"0": one}), (3, ["text"]))]
    file = write(tmp_path / "a.json", [task(1, "a.png", one), *lost])
    problems = load_source_data(f"labelstudio:{file}").problems
    assert [(one.kind, one.message.partition(": ")[2][:27]) for one in problems] == [
        ("unreadable annotation", f"task {number}: annotations must be") for number in (2, 3)
    ]
