"""Label Studio's exports JSON and JSON-MIN, and errors in wrong ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from support.labelstudio_tasks import annotation, rectangle, region, task, write

from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError


def encode_brush(mask: list[list[int]]) -> list[int]:
    """A mask as Label Studio's front end packs it: alpha of RGBA pixels, in runs of equal and of other values."""
    values = [value for row in mask for alpha in row for value in (0, 0, 0, 255 * alpha)]
    bits = f"{len(values):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    start = 0
    while start < len(values):
        end = start
        while end < len(values) and values[end] == values[start] and end - start < 8:
            end += 1
        if end - start > 1:
            bits += f"100{end - start - 1:03b}{values[start]:08b}"
        else:
            bits += f"000{0:03b}{values[start]:08b}"
        start = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


BRUSH = encode_brush([[0, 1, 1], [0, 1, 0]])


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(": ")[2] for record in caplog.records if record.levelno >= logging.WARNING]


def test_regions_in_percent_become_boxes_in_pixels(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "images" / "dogs.png", size=(200, 100))
    polygon = {"points": [[10, 10], [20, 10], [15, 50]], "closed": True, "polygonlabels": ["cat"]}
    regions = [
        rectangle("dog", 10, 20, 30, 40),
        region("polygonlabels", polygon),
        rectangle("dog", 50, 50, 10, 10, rotation=90),
        region("choices", {"choices": ["outdoor"]}),
        {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"},
    ]
    file = write(
        tmp_path / "project-1-at-2024.json", [task(7, "/data/upload/1/a1b2c3d4-dogs.png", annotation(1, *regions))]
    )
    data = load_data(str(file))
    assert class_names(data["train"]) == ["cat", "dog"]
    row = data["train"][0]
    assert row["image"]["path"] == str(tmp_path / "images" / "dogs.png")
    assert (row["width"], row["height"]) == (200, 100)
    assert row["objects"]["bbox"] == [
        pytest.approx(box) for box in ([20, 20, 60, 40], [20, 10, 20, 40], [90, 50, 10, 20])
    ]
    assert row["objects"]["category"] == [1, 0, 1]
    assert warnings_of(caplog) == []  # a choice and a relation are no shapes


def test_the_newest_annotation_that_is_not_canceled_is_used(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abcd":
        write_image(tmp_path / f"{name}.png")
    one, two, three = (rectangle(name, 0, 0, 10, 10) for name in ("one", "two", "three"))
    several = (annotation(2, two), annotation(1, one), annotation(3, three, was_cancelled=True))
    tasks = [
        task(1, "a.png", *several),
        task(2, "b.png"),
        task(3, "c.png", annotation(1, was_cancelled=True)),
        task(4, "d.png", annotation(1)),
    ]
    data = load_data(f"labelstudio:{write(tmp_path / 'a.json', tasks)}")["train"]
    assert class_names(data) == ["two"]
    assert [Path(image["path"]).name for image in data["image"]] == ["a.png", "d.png"]
    assert data["objects"][1]["bbox"] == []
    assert [line for line in warnings_of(caplog) if "tasks" in line] == [
        "2 tasks have no annotation and are left out",
        "1 tasks have several annotations; the newest one that is not canceled is used",
    ]


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ({"id": 1, "updated_at": "2024-06-01"}, {"id": 2, "updated_at": "2024-05-31"}),
        ({"created_at": "2024-01-01", "updated_at": "2024-06-01"}, {"created_at": "2024-05-01", "updated_at": ""}),
        ({"updated_at": None, "created_at": "2024-06-01"}, {"updated_at": "2024-05-31", "created_at": "2024-05-31"}),
        ({"id": 10, "updated_at": "2024-06-01"}, {"id": 9, "updated_at": "2024-06-01"}),
        ({"id": 1, "updated_at": "2024-06-01"}, {"id": "b", "updated_at": "2024-06-01"}),
    ],
)
def test_the_newest_annotation_is_that_of_the_last_change_then_of_the_largest_id(
    tmp_path: Path, write_image: Callable[..., Path], newer: dict[str, object], older: dict[str, object]
) -> None:
    write_image(tmp_path / "a.png")
    new, old = (annotation(1, rectangle(name, 0, 0, 10, 10)) for name in ("new", "old"))
    for several in ((new | newer, old | older), (old | older, new | newer)):
        data = load_data(f"labelstudio:{write(tmp_path / 'a.json', [task(1, 'a.png', *several)])}")
        assert class_names(data["train"]) == ["new"]


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=photos/sub%20x/a-b.png",
        "/data/upload/3/0123abcd-a-b.png",
        "s3://bucket/sub x/a-b.png",
        "https://example.org/x/a-b.png?token=1",
        "photos\\sub x\\a-b.png",
    ],
)
def test_images_are_located_by_name_for_every_storage(
    tmp_path: Path, write_image: Callable[..., Path], address: str
) -> None:
    image = write_image(tmp_path / "photos" / "sub x" / "a-b.png")
    file = write(tmp_path / "a.json", [task(1, address, annotation(1, rectangle("dog", 0, 0, 10, 10)))])
    assert load_data(str(file))["train"][0]["image"]["path"] == str(image)


def test_the_hash_of_an_upload_is_part_of_the_name_if_the_file_has_it(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in ("a.png", "0123abcd-a.png"):
        write_image(tmp_path / "upload" / name)
    file = write(
        tmp_path / "a.json", [task(1, "/data/upload/1/0123abcd-a.png", annotation(1, rectangle("dog", 0, 0, 9, 9)))]
    )
    assert load_data(str(file))["train"][0]["image"]["path"].endswith("upload/0123abcd-a.png")


def test_json_min_and_a_file_for_each_split(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", size=(200, 100))
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "original_width": 200, "original_height": 100}
    for split, name in (("train", "a"), ("val", "b")):
        old, new = ({**value, "rectanglelabels": [label]} for label in ("old", "new"))
        rows = [
            {"image": f"/data/upload/1/{name}.png", "id": 1, "label": [one], "annotation_id": number, "annotator": 1}
            for number, one in ((2, new), (1, old))
        ]
        write(tmp_path / f"{split}.json", rows)
    data = load_data(f"labelstudio:{tmp_path}")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 1, "validation": 1}
    assert class_names(data["train"]) == ["new"]
    assert data["validation"][0]["objects"]["bbox"] == [pytest.approx([20, 20, 60, 40])]


def test_shapes_and_classes_in_separate_regions_are_one_object(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "a.png", size=(200, 100))
    where = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}
    regions = [
        region("rectangle", where, id="r"),
        region("labels", {**where, "labels": ["dog"]}, id="r"),
        region("choices", {**where, "choices": ["sharp"]}, id="r"),
        region("rectangle", where, id="s"),
        rectangle("dog", 0, 0, 1, 1, image_rotation=360.0),
    ]
    file = write(tmp_path / "a.json", [task(1, "a.png", annotation(1, *regions))])
    data = load_source_data(f"labelstudio:{file}")
    assert data.splits["train"][0]["objects"]["bbox"] == [[0, 0, 100, 50], pytest.approx([0, 0, 2, 1])]
    assert [(one.kind, "region 's'" in one.message) for one in data.problems] == [("unreadable annotation", True)]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0}, [80, 30, 40, 40]),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90}, [90, 30, 20, 40]),
        ("brushlabels", {"format": "rle", "rle": BRUSH}, [1, 0, 2, 2]),
    ],
)
def test_every_region_with_an_area_gives_the_box_around_it(
    tmp_path: Path, write_image: Callable[..., Path], kind: str, value: dict[str, object], expected: list[float]
) -> None:
    size = (3, 2) if kind == "brushlabels" else (200, 100)
    write_image(tmp_path / "a.png", size=size)
    one = region(kind, {**value, kind: ["dog"]}) | {"original_width": size[0], "original_height": size[1]}
    file = write(tmp_path / "a.json", [task(1, "a.png", annotation(1, one))])
    assert load_data(f"labelstudio:{file}")["train"][0]["objects"]["bbox"] == [pytest.approx(expected)]


@pytest.mark.parametrize("code", [[], BRUSH[:-2], [0, 0, 0, 9, *BRUSH[4:]], [300], "text"])
def test_a_damaged_brush_is_a_problem_of_its_image(
    tmp_path: Path, write_image: Callable[..., Path], code: object
) -> None:
    write_image(tmp_path / "a.png", size=(3, 2))
    write_image(tmp_path / "b.png", size=(3, 2), seed=1)
    brush = region("brushlabels", {"format": "rle", "rle": code, "brushlabels": ["dog"]})
    tasks = [task(1, "a.png", annotation(1, brush)), task(2, "b.png", annotation(1, rectangle("dog", 0, 0, 50, 50)))]
    data = load_source_data(f"labelstudio:{write(tmp_path / 'a.json', tasks)}")
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 0)]


def test_rotated_images_are_refused(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """The place of the boxes on the image is not defined then, and a wrong guess would not be noticed."""
    turns = (90, 0, "270", 360, "left", -90)
    for number in range(1, 1 + len(turns)):
        write_image(tmp_path / f"{number}.png", size=(200, 100))
    tasks = [
        task(number, f"{number}.png", annotation(1, rectangle("dog", 0, 0, 9, 9, image_rotation=turn)))
        for number, turn in enumerate(turns, start=1)
    ]
    file = write(tmp_path / "a.json", tasks)
    problems = load_source_data(f"labelstudio:{file}").problems
    assert [(one.kind, one.row) for one in problems] == [("unreadable annotation", row) for row in (0, 2, 4, 5)]
    assert "Rotate it back" in problems[0].message


def test_a_label_is_text_and_cancelled_is_yes_or_no(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    odd = region("rectanglelabels", {"x": 0, "y": 0, "width": 9, "height": 9, "rectanglelabels": [["dog"]]})
    tasks = [
        task(1, "a.png", annotation(1, rectangle("cat", 0, 0, 9, 9), was_cancelled="false")),
        task(2, "a.png", annotation(1, rectangle("cat", 0, 0, 9, 9), was_cancelled="perhaps")),
        task(3, "a.png", annotation(1, odd)),
    ]
    with pytest.raises(InputError) as caught:
        load_data(f"labelstudio:{write(tmp_path / 'a.json', tasks)}")
    assert {problem.partition(": ")[2] for problem in caught.value.problems[:-1]} == {
        "task 2: was_cancelled must be yes (1, true) or no (0, false), got 'perhaps'",
        "task 3: region 'r5rectanglelabels': a label must be text, got ['dog']",
    }


def test_problems_are_reported_together(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "x" / "a.png")
    write_image(tmp_path / "y" / "a.png")
    write_image(tmp_path / "b.png")
    wrong = rectangle("dog", 0, 0, 1, 1) | {"value": {"x": "left", "y": 0, "width": 1, "rectanglelabels": ["dog"]}}
    tasks = [
        task(1, "a.png", annotation(1)),
        task(2, "b.png", annotation(1, wrong, region("polygonlabels", {"points": [[1, 1]], "polygonlabels": ["x"]}))),
        task(3, "", annotation(1)) | {"data": {"text": "no image here"}},
    ]
    file = write(tmp_path / "a.json", tasks)
    with pytest.raises(InputError) as caught:
        load_data(f"labelstudio:{file}")
    starts = {
        f"{file}: task 1: the image a.png is ambiguous",
        f"{file}: task 2: region 'r6rectanglelabels': a region of type rectanglelabels must have numbers",
        f"{file}: task 2: region 'r2polygonlabels': a region of type polygonlabels must have numbers",
        f"{file}: task 3: data must name an image",
    }
    reason, *problems = caught.value.problems
    assert "no classes" in reason
    assert starts == {start for start in starts for problem in problems if problem.startswith(start)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not valid JSON"),
        ("[]", "must be a list of tasks"),
        ("[3]", "must be a list of tasks"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]', "has detections"),
        ('[{"id": 1, "data": {"image": "a.png"}, "annotations": []}]', "no annotated task.*Export the project"),
        (
            '[{"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": []}]}]',
            r"none of its 1 images is below .*, for example a\.png",
        ),
    ],
)
def test_a_file_that_is_no_export(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_data(f"labelstudio:{tmp_path / 'a.json'}")


def test_predictions_are_read_if_no_task_has_an_annotation(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, (200, 100))
    predicted = {"predictions": [{"id": 1, "result": [rectangle("cat", 10, 20, 30, 40)]}]}
    tasks = [{**task(1, "/data/upload/1/a.png"), **predicted}, task(2, "/data/upload/1/b.png")]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    (row,) = load_data(f"labelstudio:{tmp_path}")["train"]
    assert row["objects"]["bbox"] == [pytest.approx([20, 20, 60, 40])]
    tasks[1]["annotations"] = [annotation(1, rectangle("dog", 0, 0, 50, 50))]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    (row,) = load_data(f"labelstudio:{tmp_path}")["train"]
    assert Path(row["image"]["path"]).name == "b.png"
