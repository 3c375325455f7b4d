"""A repaired copy has no defects, a record of every change, and unchanged valid boxes."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from PIL import Image

from detr_ft.data.doctor import examine, repair_data, scan_dataset
from detr_ft.data.doctor.changes import problem_of_copy, summarize_changes
from detr_ft.data.doctor.repair import RepairedData, write_repaired
from detr_ft.data.doctor.statistics import boxes_of
from detr_ft.data.integrity.annotated_size import Frame
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.problems import Problem
from detr_ft.errors import InputError

W, H = 200, 150
VALID = [10.0, 20.0, 30.0, 40.0]
REPAIRED = {
    "missing file", "unreadable", "truncated", "too large", "wrong size", "unclear size", "box format", "not finite", "unknown class",
    "zero size", "negative size", "outside", "duplicate box", "duplicate image",
}  # fmt: skip


def repaired(data: DatasetDict) -> RepairedData:
    return repair_data(data, scan_dataset(data))


def hashes(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("box", "what", "after"),
    [
        ([math.nan, 1, 2, 3], "left out: not finite", None),
        ([1, 1, math.inf, 3], "left out: not finite", None),
        ([1, 1, 0, 3], "left out: zero size", None),
        ([1, 1, 3, 0.0009], "left out: zero size", None),
        ([199.9991, 1, 3, 3], "left out: outside", None),
        ([199.75, 1, 3, 3], "clipped to the image", [199.75, 1, 0.25, 3]),
        ([50, 60, -20, -30], "corners put in order", [30, 30, 20, 30]),
        ([-10, 20, 30, 40], "clipped to the image", [0, 20, 20, 40]),
        ([180, 100, 40, 70], "clipped to the image", [180, 100, 20, 50]),
        ([300, 10, 5, 5], "left out: outside", None),
        (VALID, "left out: duplicate box", None),
    ],
)
def test_a_box_is_repaired_and_the_change_recorded(
    make_rows, box: list[float], what: str, after: list[float] | None
) -> None:
    data = DatasetDict({"train": make_rows([VALID, box], size=(W, H))})
    result = repaired(data)
    (change,) = result.changes
    assert (change.what, change.image_id, change.annotation_id) == (what, 100, 1001)
    objects = result.data["train"][0]["objects"]
    assert objects["bbox"] == [VALID, after] if after else [VALID]
    assert objects["id"] == ([1000, 1001] if after else [1000])
    if after:
        assert objects["area"][1] == pytest.approx(after[2] * after[3])
    assert objects["area"][0] == data["train"][0]["objects"]["area"][0]


def test_a_class_index_beyond_the_names_goes(make_rows) -> None:
    rows = make_rows([VALID], [VALID, [1, 1, 5, 5]], labels=[[0], [0, -1]])
    result = repaired(DatasetDict({"train": rows}))
    (change,) = result.changes
    # The image without the box would be learned as if nothing were there.
    assert (change.what, change.image_id, change.annotation_id) == ("left out: unknown class", 101, None)
    assert result.data["train"]["image_id"][:] == [100]


def test_the_same_box_with_another_class_stays(make_rows) -> None:
    rows = make_rows([VALID] * 3, labels=[[0, 1, 0]], names=["dog", "cat"])
    result = repaired(DatasetDict({"train": rows}))
    assert result.data["train"][0]["objects"]["category"] == [0, 1]
    assert [one.annotation_id for one in result.changes] == [1002]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_an_image_as_stored_are_turned_with_it(tmp_path: Path, make_rows, orientation: int) -> None:
    rows = make_rows([[20, 90, 60, 30]], size=(W, H))
    pixels = np.zeros((H, W, 3), dtype=np.uint8)
    pixels[90:120, 20:80] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "train/0.png", exif=exif)
    result = repaired(DatasetDict({"train": rows}))
    assert [one.what for one in result.changes] == ["size as the file has it", "turned upright"]
    row = result.data["train"][0]
    assert (row["width"], row["height"]) == (H, W)
    x, y, w, h = map(int, row["objects"]["bbox"][0])
    from detr_ft.data.images import open_image

    upright = np.asarray(open_image(row["image"]))
    assert (upright[y : y + h, x : x + w] == 255).all()
    assert (upright == 255).sum() == 3 * w * h


def test_a_wrong_size_of_the_same_shape_scales_the_boxes(make_rows, tmp_path: Path) -> None:
    rows = make_rows([VALID], [VALID], size=(W, H))
    Image.new("RGB", (2 * W, 2 * H), "red").save(tmp_path / "train/0.png")
    result = repaired(DatasetDict({"train": rows}))
    assert [row["objects"]["bbox"] for row in result.data["train"]] == [[[20, 40, 60, 80]], [VALID]]
    assert [(row["width"], row["height"]) for row in result.data["train"]] == [(2 * W, 2 * H), (W, H)]
    assert result.data["train"][0]["objects"]["area"] == [4800]


@pytest.mark.parametrize(("drawn_on", "boxes"), [(None, []), ("file", [[VALID]]), ("stated", [[[10, 40, 30, 80]]])])
def test_images_of_another_shape_are_left_out_without_drawn_on(
    make_rows, tmp_path: Path, drawn_on: Frame | None, boxes: list[object]
) -> None:
    data = DatasetDict({"train": make_rows([VALID], [VALID], size=(W, H))})
    Image.new("RGB", (W, 2 * H), "blue").save(tmp_path / "train/1.png")
    result = repair_data(data, scan_dataset(data), drawn_on)
    assert [row["objects"]["bbox"] for row in result.data["train"]] == [[VALID], *boxes]
    reported = ["left out: drawn for an unknown size", [W, H], [W, 2 * H]]
    if not boxes:
        assert [[one.what, list(one.before), list(one.after)] for one in result.changes] == [reported]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_mirrored_images_go_with_the_turned_ones_beside_them(make_rows, tmp_path: Path, orientation: int) -> None:
    rows = make_rows([VALID], [VALID], size=(W, H))
    exif = Image.Exif()
    for place, turned in enumerate((6, orientation)):
        exif[0x0112] = turned
        Image.new("RGB", (W, H), ("red", "blue")[place]).save(tmp_path / f"train/{place}.png", exif=exif)
    moved = {2: [W - 40, 20, 30, 40], 3: [W - 40, H - 60, 30, 40], 4: [10, H - 60, 30, 40]}[orientation]
    result = repaired(DatasetDict({"train": rows}))
    assert result.data["train"][1]["objects"]["bbox"] == [moved]
    assert repaired(DatasetDict({"train": rows.select([1])})).changes == ()  # one image shows nothing


def test_copies_stay_in_the_evaluation_splits(make_rows) -> None:
    train = make_rows([VALID], [VALID], [VALID])
    data = DatasetDict({"train": train, "validation": train.select([1, 0]), "test": train.select([0, 0])})
    result = repaired(data)
    assert {split: rows["image_id"][:] for split, rows in result.data.items()} == {
        "train": [102], "validation": [101], "test": [100],
    }  # fmt: skip
    assert {one.what for one in result.changes} == {"left out: the same bytes as another"}
    assert all(str(one.after).startswith("remains as ") for one in result.changes)
    assert summarize_changes(result.changes) == "image left out: the same bytes as another: 4"


def test_the_copy_that_stays_gets_the_boxes_that_only_the_others_have(make_rows) -> None:
    other = [5.0, 6.0, 7.0, 8.0]
    train = make_rows([VALID], [VALID, other], [VALID])
    shared = [train[0]["image"], train[0]["image"], train[2]["image"]]  # one file, recorded under two ids
    train = (
        train.remove_columns("image").add_column("image", shared).cast(train.features).select_columns([*train.features])
    )
    data = DatasetDict({"train": train})
    result = repaired(data)
    unchanged = result.data["train"][0]
    assert result.data["train"]["image_id"][:] == [100, 102]
    assert unchanged["objects"]["bbox"] == [VALID, other]
    assert (unchanged["objects"]["id"], unchanged["objects"]["area"]) == ([1000, 1051], [1200, 56])
    assert [(one.image_id, one.annotation_id, one.what) for one in result.changes] == [
        (101, None, "left out: the same bytes as another"),
        (101, 1051, "moved to the copy that remains"),
    ]
    assert result.changes[1].before == other
    assert [len(objects["bbox"]) for objects in data["train"]["objects"]] == [1, 2, 1]


def test_a_copy_of_unclear_size_is_replaced_by_a_valid_one(make_rows, tmp_path: Path) -> None:
    train = make_rows([VALID], [VALID], size=(W, H))
    Image.new("RGB", (W, 2 * H), "blue").save(tmp_path / "train/0.png")
    valid = train.select([0]).map(lambda _: {"height": 2 * H}, features=train.features)
    result = repaired(DatasetDict({"train": valid, "test": train}))
    assert {split: rows["image_id"][:] for split, rows in result.data.items()} == {"train": [100], "test": [101]}
    assert [one.what for one in result.changes] == ["left out: drawn for an unknown size"]


def test_classes_that_differ_in_case_or_blanks_are_merged(make_rows, tmp_path: Path) -> None:
    names = ["Dog", "cat", "dog", " dog ", "a", "A"]
    labels = [[0, 2, 3], [2, 1, 4, 5, -1]]
    boxes = [[VALID, VALID, [1, 1, 5, 5]], [VALID, [2, 2, 5, 5], [3, 3, 5, 5], [4, 4, 5, 5], [5, 5, 5, 5]]]
    data = DatasetDict({"test": make_rows(*boxes, labels=labels, names=names)})
    found = next(one for one in examine(data).findings if one.kind == "similar class names")
    assert found.message.startswith("'Dog' (1), 'dog' (2), ' dog ' (1) are nearly the same")
    assert "--fix COPY merges" in found.remedy
    result = repaired(data)
    assert class_names(result.data["test"]) == ["dog", "cat", "a", "A"]
    # The second image has an object of no class.
    assert [objects["category"] for objects in result.data["test"]["objects"]] == [[0, 0]]
    reported = [(one.image_id, one.annotation_id, one.before, one.after) for one in result.changes[:2]]
    assert reported == [(100, 1000, "Dog", "dog"), (100, 1002, " dog ", "dog")]
    assert summarize_changes(result.changes).splitlines() == [
        "box of class 'Dog' renamed 'dog': 1",
        "box of class ' dog ' renamed 'dog': 1",
        "box left out: duplicate box: 1",
        "image left out: unknown class: 1",
    ]
    write_repaired(result, tmp_path / "out")
    assert class_names(load_data(str(tmp_path / "out"))["test"]) == ["dog"]


def test_a_whole_split_in_corners_is_converted(make_rows, tmp_path: Path) -> None:
    corners = [[[20 + 10 * x, 30, 60 + 10 * x, 120]] for x in range(12)]
    data = DatasetDict({"train": make_rows(*corners, size=(W, H))})
    result = repaired(data)
    assert [row["objects"]["bbox"][0] for row in result.data["train"]] == [[20 + 10 * x, 30, 40, 90] for x in range(12)]
    assert result.data["train"][3]["objects"]["area"] == [3600]
    assert {one.what for one in result.changes} == {"converted from xyxy in pixels"}


def test_no_image_left_raises(make_rows, tmp_path: Path) -> None:
    data = DatasetDict({"train": make_rows([VALID])})
    (tmp_path / "train/0.png").unlink()
    with pytest.raises(InputError, match="no image that can be read"):
        repaired(data)


def test_clean_data_is_copied_as_it_is(make_rows, tmp_path: Path) -> None:
    data = DatasetDict(
        {"train": make_rows([VALID], []), "test": make_rows([[0.1, 0.2, 0.3, 149.7]], folder="b", seed=1)}
    )
    result = repaired(data)
    assert result.changes == ()
    assert {split: rows.to_list() for split, rows in result.data.items()} == {
        split: rows.to_list() for split, rows in data.items()
    }
    assert summarize_changes(result.changes) == "no changes were necessary"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="out is not empty"):
        write_repaired(result, tmp_path / "out")


def plant(random: np.random.Generator, folder: Path) -> set[int]:
    """Spoil files and boxes of a COCO folder at random; returns the ids of annotations that were left alone."""
    untouched: set[int] = set()
    for split in ("train", "validation"):
        file = folder / split / "_annotations.coco.json"
        content = json.loads(file.read_text())
        spoilt_images = set()
        for image in content["images"]:
            path, kind = folder / split / image["file_name"], random.integers(12)
            if kind == 0:
                path.unlink()
            elif kind == 1:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            elif kind == 2:
                path.write_bytes(b"no image")
            elif kind == 3:
                shutil.copyfile(
                    folder / "train" / content["images"][0]["file_name"], path
                ) if split == "train" else None
            elif kind == 4:
                image["width"] *= 2
                image["height"] *= 2
            elif kind == 5:
                image["width"] += 7
            if kind < 6:
                spoilt_images.add(image["id"])
        twins = []
        for one in content["annotations"]:
            x, y, w, h = one["bbox"]
            kind = random.integers(14)
            spoilt = {0: [x, y, 0, h], 1: [x + w, y + h, -w, -h], 2: [x, math.nan, w, h], 3: [x - w / 2 - 1 - x, y, w, h],
                      4: [x, y, math.inf, h], 5: [500, 500, w, h], 6: [x + w, y, -w, h]}  # fmt: skip
            if kind in spoilt:
                one["bbox"] = spoilt[kind]
            elif kind == 7:
                twins.append({**one, "id": one["id"] + 100_000})
            elif one["image_id"] not in spoilt_images:
                untouched.add(one["id"] if split == "train" else -one["id"])
        content["annotations"] += twins
        file.write_text(json.dumps(content))
    return untouched


@pytest.mark.parametrize("seed", range(6))
def test_the_copy_is_clean_and_valid_boxes_are_unchanged(tmp_path: Path, seed: int) -> None:
    from detr_ft.data.export import write_coco

    folder = tmp_path / "data"
    write_coco(load_data(f"generated:shapes?train=24&validation=12&edge=64&seed={seed}"), folder)
    untouched = plant(np.random.default_rng(seed), folder)
    data, before = load_data(f"coco:{folder}"), hashes(folder)
    assert REPAIRED & {one.kind for one in examine(data).findings}
    result = repaired(data)
    write_repaired(result, tmp_path / "out")
    assert hashes(folder) == before
    copy = load_data(f"coco:{tmp_path / 'out'}")
    again = examine(copy)
    assert not REPAIRED & {one.kind for one in again.findings}
    assert not any(again.leaked.values())
    for split, sign in (("train", 1), ("validation", -1)):
        was, now = (
            {int(n): box for n, box in zip(b.id, b.xywh.tolist(), strict=True)}
            for b in (boxes_of(data[split]), boxes_of(copy[split]))
        )
        unchanged = {number for number in now if sign * number in untouched}
        assert {number: now[number] for number in unchanged} == {number: was[number] for number in unchanged}
    lines = [json.loads(line) for line in (tmp_path / "out/changes.jsonl").read_text().splitlines()]
    assert len(lines) == len(result.changes)
    assert set(lines[0]) == {"split", "file", "image_id", "annotation_id", "what", "before", "after"}
    left_out = Counter(line["annotation_id"] is None for line in lines if line["what"].startswith("left out"))
    assert left_out[True] == sum(map(len, data.values())) - sum(map(len, copy.values()))


@pytest.mark.parametrize("box", [[10, 10, 0, 5], [500, 10, 5, 5], [float("nan"), 1, 1, 1]], ids=str)
def test_an_image_without_a_usable_box_is_left_out(make_rows, box: list[float]) -> None:
    data = DatasetDict({"train": make_rows([VALID], [box], [], [box, VALID])})
    result = repaired(data)
    assert result.data["train"]["image_id"] == [100, 102, 103]
    assert [len(objects["bbox"]) for objects in result.data["train"]["objects"]] == [1, 0, 1]
    (change,) = [change for change in result.changes if change.annotation_id is None]
    assert (change.image_id, change.what) == (101, "left out: no usable box")
    errors = [found for found in examine(data).findings if found.level == "error"]
    assert {(found.kind, found.image_id) for found in errors} == (
        {("not finite", 101), ("not finite", 103)} if box[0] != box[0] else {("no usable box", 101)}
    )


def test_the_train_split_remains_if_validation_has_all_of_its_images(make_rows) -> None:
    rows = make_rows([VALID], [VALID])
    same = repaired(DatasetDict({"train": rows, "validation": rows}))
    assert {split: len(some) for split, some in same.data.items()} == {"train": 2}
    partly = repaired(DatasetDict({"train": rows, "validation": rows.select([0])}))
    assert {split: some["image_id"] for split, some in partly.data.items()} == {"train": [101], "validation": [100]}


def test_entries_of_no_image_are_listed_in_the_copy(make_rows, tmp_path: Path) -> None:
    data = DatasetDict({"train": make_rows([VALID])})
    lost = Problem("lost annotation", "a.json: annotation 7: image 9 is not among the file's images")
    read = Problem("shape without area", "a.json: shape 1: a point has no area", split="train", row=0)
    result = repair_data(data, scan_dataset(data), problems=[lost, read])
    assert [(one.file, one.what, one.before) for one in result.changes] == [
        ("a.json", "not in the copy: lost annotation", lost.message)
    ]
    write_repaired(result, tmp_path / "out")
    note = problem_of_copy(tmp_path / "out")
    assert note is not None
    assert (note.kind, "1 entries" in note.message) == ("lost annotation", True)


def test_files_are_copied_byte_for_byte(make_rows, tmp_path: Path) -> None:
    data = DatasetDict({"train": make_rows([VALID, [1, 1, 0, 2]])})
    write_repaired(repaired(data), tmp_path / "out")
    assert (tmp_path / "out/train/0.png").read_bytes() == (tmp_path / "train/0.png").read_bytes()
    (line,) = (tmp_path / "out/changes.jsonl").read_text().splitlines()
    assert json.loads(line)["file"] == str(tmp_path / "train/0.png")


def test_real_data(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    data = load_data(str(real_data("chess_coco")))
    result = repaired(data)
    assert [one.what for one in result.changes] == ["left out: duplicate box"]


def test_a_damaged_record_of_changes_is_no_note(tmp_path: Path) -> None:
    for text in ("[" * 100_000, "{", "\0", "9" * 5000):
        (tmp_path / "changes.jsonl").write_text(text)
        assert problem_of_copy(tmp_path) is None
