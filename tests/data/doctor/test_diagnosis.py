"""The doctor finds every planted defect and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from detr_ft.data.box_frame import count_boxes
from detr_ft.data.doctor import Diagnosis, examine
from detr_ft.data.doctor.kinds import KINDS, LEVELS
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.data.sources.load import load_data
from detr_ft.report.doctor import describe, render_report

Box = tuple[float, float, float, float]
GOOD: Box = (1.0, 2.0, 30.0, 20.0)


def split(paths: list[Path], boxes: list[Box], sizes: dict[int, tuple[int, int]] | None = None) -> Dataset:
    """Images of 40x30 pixels, each with the given boxes of class 0; `sizes` states others."""
    stated = [(sizes or {}).get(index, (40, 30)) for index in range(len(paths))]
    objects = detection_objects(boxes, [0] * len(boxes))
    columns = {
        "image": [{"path": str(path), "bytes": None} for path in paths],
        "image_id": [50 + index for index in range(len(paths))],
        "width": [width for width, _ in stated],
        "height": [height for _, height in stated],
        "objects": [objects] * len(paths),
    }
    return Dataset.from_dict(columns, features=detection_features(["dog"]))


def kinds(diagnosis: Diagnosis) -> list[str]:
    return [finding.kind for finding in diagnosis.findings]


def test_500_clean_images_give_no_finding() -> None:
    diagnosis = examine(load_data("generated:shapes?train=400&validation=100&edge=64"))
    assert diagnosis.findings == ()
    assert diagnosis.splits["train"].images == 400
    assert diagnosis.splits["train"].images_without_objects > 0
    assert "no findings" in describe(diagnosis)


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((1, 2, 0, 5), "zero size"),
        ((1, 2, 5, 0), "zero size"),
        ((20, 2, -5, 9), "negative size"),
        ((math.nan, 2, 3, 4), "not finite"),
        ((1, 2, math.inf, 4), "not finite"),
        ((1, -math.inf, 3, 4), "not finite"),
        ((20, 2, 21, 4), "outside"),
        ((-3, 2, 10, 4), "outside"),
        ((100, 200, 10, 4), "outside"),
        (GOOD, "duplicate box"),
    ],
)
def test_a_planted_box_is_found_with_its_place(
    tmp_path: Path, write_image: Callable[..., Path], box: Box, kind: str
) -> None:
    path = write_image(tmp_path / "x.png")
    (finding,) = examine(DatasetDict({"train": split([path], [GOOD, box])})).findings
    assert (finding.kind, finding.split, finding.image_id, finding.annotation) == (kind, "train", 50, 1)
    assert str(path) in str(finding.image)
    assert finding.remedy


def test_boxes_on_the_border_are_clean(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    boxes: list[Box] = [(0, 0, 40, 30), (-0.4, -0.4, 40.8, 30.8), (39, 29, 1, 1)]
    assert kinds(examine(DatasetDict({"train": split([write_image(tmp_path / "x.png")], boxes)}))) == []


def test_planted_files_are_found(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    paths = [write_image(tmp_path / f"{index}.jpg", seed=index) for index in range(7)]
    paths[1].write_bytes(b"no image")
    paths[2].write_bytes(paths[2].read_bytes()[:-200])
    write_image(paths[3], size=(30, 40), orientation=6)
    paths[4].unlink()
    data = DatasetDict({"train": split(paths, [GOOD], sizes={5: (80, 60), 6: (50, 30)})})
    found = {finding.image_id: (finding.kind, finding.level) for finding in examine(data).findings}
    assert found == {
        51: ("unreadable", "error"),
        52: ("truncated", "error"),
        53: ("exif rotation", "info"),
        54: ("missing file", "error"),
        55: ("wrong size", "warning"),
        56: ("unclear size", "error"),
    }


def test_a_size_stated_before_rotation_is_explained(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    path = write_image(tmp_path / "x.jpg", size=(40, 30), orientation=8)
    findings = examine(DatasetDict({"train": split([path], [GOOD])})).findings
    assert [finding.kind for finding in findings] == ["exif rotation", "wrong size"]
    assert findings[0].message.endswith("its boxes seem to be drawn on the image as stored")
    assert findings[1].message == "stated 40x30, is 30x40 when upright; boxes: turned upright"


def test_the_same_image_is_found_within_and_across_splits(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    first, second = write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png")
    data = DatasetDict({"train": split([first, second], [GOOD]), "test": split([second], [GOOD])})
    findings = examine(data).findings
    assert [(finding.kind, finding.split) for finding in findings] == [
        ("duplicate image", "train"),
        ("leakage", "test"),
    ]
    assert findings[1].message.endswith(f"{first} (image 50) in train")
    assert str(second) in str(findings[1].image)


def test_more_objects_than_queries(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    boxes: list[Box] = [(index, 0, 1, 1) for index in range(7)]
    data = DatasetDict({"train": split([write_image(tmp_path / "x.png")], boxes)})
    assert kinds(examine(data, num_queries=7)) == []
    (finding,) = examine(data, num_queries=6).findings
    assert finding.message == "7 objects, 6 queries"


def test_objects_that_training_drops_as_too_thin_have_no_size(make_rows) -> None:
    boxes = [[1.0, 1.0, 5.0, 0.0009], [1.0, 1.0, 0.0011, 5.0]]
    rows = make_rows(boxes)
    assert count_boxes(rows).dropped_empty == 1
    found = [(one.kind, one.place) for one in examine(DatasetDict({"train": rows})).findings if "size" in one.kind]
    assert found == [("zero size", 0)]


def test_a_crowd_needs_no_query(make_rows) -> None:
    rows = make_rows([[9 * place, 0, 5, 5] for place in range(7)])
    crowd = rows.map(lambda row: {"objects": {**row["objects"], "iscrowd": [0] * 6 + [1]}}, features=rows.features)
    assert kinds(examine(DatasetDict({"train": crowd}), num_queries=6)) == []
    assert kinds(examine(DatasetDict({"train": crowd}), num_queries=5)) == ["more objects than queries"]


def test_the_same_box_with_another_class_is_no_duplicate(make_rows) -> None:
    boxes, names = [list(GOOD)] * 3, ["dog", "cat"]
    assert kinds(examine(DatasetDict({"train": make_rows(boxes[:2], labels=[[0, 1]], names=names)}))) == []
    (found,) = examine(DatasetDict({"train": make_rows(boxes, labels=[[0, 1, 0]], names=names)})).findings
    assert (found.kind, found.place) == ("duplicate box", 2)


def test_a_class_that_a_split_lacks(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    paths = [write_image(tmp_path / f"{index}.png", seed=index) for index in range(2)]
    data = DatasetDict({"train": split(paths[:1], [GOOD]), "test": split(paths[1:], [])})
    diagnosis = examine(data)
    assert [(finding.kind, finding.split, finding.image) for finding in diagnosis.findings] == [
        ("class missing", "test", None)
    ]
    assert diagnosis.splits["test"].images_without_objects == 1


def test_a_class_that_no_split_has_is_reported_once(make_rows) -> None:
    box = [list(GOOD)]
    names = ["dog", "cat", "owl"]
    data = {
        split: make_rows(box, labels=[[label]], names=names, folder=split, seed=seed)
        for seed, (split, label) in enumerate({"train": 0, "validation": 0, "test": 1}.items())
    }
    findings = examine(DatasetDict(data)).findings
    assert [(one.kind, one.split, one.message) for one in findings] == [
        ("class missing", "test", "no box of class 'dog'"),
        ("class missing", "train", "no box of class 'cat'"),
        ("class missing", "validation", "no box of class 'cat'"),
        ("class missing", "train, validation, test", "no box of class 'owl' in any split"),
    ]


def test_a_class_index_beyond_the_names(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    path = write_image(tmp_path / "x.png")
    rows = split([path], [GOOD])
    rows = rows.map(lambda row: {"objects": {**row["objects"], "category": [-1]}}, features=rows.features)
    assert kinds(examine(DatasetDict({"train": rows}))) == ["unknown class", "class missing"]


def test_json_and_text_report_the_same(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    boxes: list[Box] = [GOOD, (math.nan, 1, 2, 3), *[(index, 0, 0, 0) for index in range(30)]]
    diagnosis = examine(DatasetDict({"train": split([write_image(tmp_path / "x.png")], boxes)}))
    reported = json.loads(diagnosis.to_json())
    assert reported["splits"]["train"] == {
        "images": 1,
        "boxes": 32,
        "images_without_objects": 0,
        "boxes_per_class": {"dog": 32},
    }
    assert len(reported["findings"]) == 31
    assert reported["findings"][0]["kind"] == "not finite"
    assert "warning: zero size: 30." in describe(diagnosis)
    assert "  30 times, for example train, " in describe(diagnosis)
    assert describe(diagnosis).count("width 0, height 0") == 1
    assert describe(diagnosis).endswith("repair the errors first (exit status 2)")


def test_findings_have_the_annotation_id(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    rows = split([write_image(tmp_path / "x.png")], [GOOD, (1, 2, 0, 5)])
    rows = rows.map(lambda row: {"objects": {**row["objects"], "id": [71, 93]}}, features=rows.features)
    (found,) = examine(DatasetDict({"train": rows})).findings
    assert (found.annotation, found.place, found.row) == (93, 1, 0)
    assert str(found).startswith(f"warning: zero size: train, {tmp_path / 'x.png'} (image 50), annotation 93: ")


def test_an_image_that_no_record_names(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    paths = [write_image(tmp_path / f"{index}.png", seed=index) for index in range(2)]
    (tmp_path / "notes.txt").write_text("no image")
    (found,) = examine(DatasetDict({"train": split(paths[:1], [GOOD])})).findings
    assert (found.kind, found.image, found.row) == ("no record", str(paths[1]), None)


def test_files_beside_the_path_of_an_image_in_bytes_are_ignored(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    other = write_image(tmp_path / "other.png")
    image = [{"path": str(tmp_path / "inside.png"), "bytes": other.read_bytes()}]
    rows = split([other], [GOOD])
    rows_in_bytes = Dataset.from_dict({**rows.to_dict(), "image": image}, features=rows.features)
    assert examine(DatasetDict({"train": rows_in_bytes})).findings == ()


def test_every_kind_has_effect_and_remedy() -> None:
    for kind in KINDS.values():
        assert kind.what.endswith(".")
        assert kind.why.endswith(".")
        assert kind.remedy
        assert kind.level in LEVELS


def test_real_data(real_data: Callable[[str], Path]) -> None:
    cells = examine(load_data(str(real_data("bccd_voc"))))
    assert {(one.kind, str(one.image).split("Image_")[1][:5]) for one in cells.findings} == {
        ("zero size", "00338"), ("zero size", "00343"), ("leakage", "00037"),
    }  # fmt: skip
    chess = examine(load_data(str(real_data("chess_coco"))))
    plain = [kind for kind in kinds(chess) if kind not in ("leakage", "near duplicate")]
    assert sorted(plain) == [
        "class missing",
        "class missing",
        "copy without boxes",
        "copy without boxes",
        "duplicate box",
    ]
    # Both are visible: the knights are annotated as black-rook, the white rooks have no boxes.
    unlabeled = {(one.split, one.message.split("'")[1]) for one in chess.findings if one.kind == "copy without boxes"}
    assert unlabeled == {("train", "black-knight"), ("test", "white-rook")}
    assert chess.leaked == {"train": 0, "validation": 58, "test": 29}  # one board, one camera
    assert chess.splits["test"].images_without_objects == 1
    assert not chess.errors


def test_wrong_sizes_are_grouped_by_the_change_of_boxes(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    exif, sizes = [8, 3, 2, 1, 1], {3: (80, 60), 4: (20, 15)}
    paths = [write_image(tmp_path / f"{n}.jpg", seed=n, orientation=turned) for n, turned in enumerate(exif)]
    data = DatasetDict({"train": split(paths, [(1, 2, 15, 10)], sizes)})
    diagnosis = examine(data)
    mirrored = "mirrored or turned upside down, as in EXIF"
    causes = [one.cause for one in diagnosis.findings if one.kind == "wrong size"]
    assert causes == ["turned upright", mirrored, mirrored, "scaled to the true size", "scaled to the true size"]
    text = describe(diagnosis).splitlines()
    start = next(index for index, line in enumerate(text) if line.startswith("warning: wrong size: 5"))
    lines = text[start + 1 : start + 4]
    assert [line.partition(": ")[0] for line in lines] == [
        f"  2 times, for example train, {paths[1]} (image 51)",
        f"  2 times, for example train, {paths[3]} (image 53)",
        f"  train, {paths[0]} (image 50)",
    ]
    assert lines[0].strip() in render_report(diagnosis, data)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_exif_mirroring_is_a_warning_if_no_other_image_shows_turning(
    tmp_path: Path, write_image: Callable[..., Path], orientation: int
) -> None:
    path = write_image(tmp_path / "a.jpg", orientation=orientation)
    (found,) = examine(DatasetDict({"train": split([path], [GOOD])})).findings
    assert (found.kind, found.level) == ("exif mirroring", "warning")
    assert "it is unclear if its boxes were drawn" in found.message
    assert "--report" in found.remedy
    without = examine(DatasetDict({"train": split([path], [])})).findings
    assert [one.kind for one in without] == ["exif rotation", "class missing"]
    upright = write_image(tmp_path / "b.jpg", size=(30, 40), orientation=6, seed=1)
    reported = examine(DatasetDict({"train": split([path, upright], [GOOD])})).findings
    assert [(one.kind, one.level) for one in reported] == [("exif rotation", "info")] * 2
    apart = examine(DatasetDict({"train": split([path], [GOOD]), "test": split([upright], [GOOD])})).findings
    assert [(one.kind, one.level) for one in apart] == [("exif rotation", "info")] * 2
    square = write_image(tmp_path / "b.jpg", size=(40, 40), orientation=6, seed=1)
    still = examine(DatasetDict({"train": split([path, square], [GOOD], sizes={1: (40, 40)})})).findings
    assert [one.kind for one in still] == ["exif mirroring", "exif rotation"]


def test_boxes_under_a_pixel(make_rows: Callable[..., Dataset]) -> None:
    found = examine(DatasetDict(train=make_rows([[1, 2, 30, 20], [0.25, 0.5, 0.5, 0.25]]))).findings
    assert [(one.kind, one.annotation) for one in found] == [("under a pixel", 1001)]


def test_data_without_a_train_split(make_rows: Callable[..., Dataset]) -> None:
    rows = make_rows([[1, 2, 30, 20]])
    assert [one.kind for one in examine(DatasetDict(test=rows)).findings] == ["no train split"]
    assert examine(DatasetDict(train=rows)).findings == ()
