"""WebDataset's tar files in the layout of `webdataset.ShardWriter` 1.0.2, with the accepted forms of JSON."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Image

from detr_ft.data.images import open_image
from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]

BOXES, NAMES = [[1, 2, 8, 10], [10, 3, 20, 12]], ["dog", "Käse"]
ANNOTATIONS = [
    {"id": 7 + i, "image_id": 1, "category_id": i + 1, "bbox": box, "area": 5, "iscrowd": i, "segmentation": []}
    for i, box in enumerate(BOXES)
]
CATEGORIES = [{"id": 1, "name": "dog", "supercategory": ""}, {"id": 2, "name": "Käse", "supercategory": ""}]
FORMS = {
    "mapping of lists": {"objects": {"bbox": BOXES, "category": NAMES}},
    "list of mappings": {"objects": [{"bbox": box, "label": name} for box, name in zip(BOXES, NAMES, strict=True)]},
    "top level": {"boxes": BOXES, "labels": NAMES, "width": 40, "height": 30},
    "coco": {"image": {"id": 1, "width": 40, "height": 30}, "annotations": ANNOTATIONS, "categories": CATEGORIES},
    "names in annotations": {"annotations": [row | {"category_name": NAMES[i]} for i, row in enumerate(ANNOTATIONS)]},
    "list alone": [{"bbox": box, "category": name} for box, name in zip(BOXES, NAMES, strict=True)],
}


@pytest.fixture
def jpeg(tmp_path: Path, write_image: Write) -> Callable[[int], bytes]:
    return lambda seed: write_image(tmp_path / "originals" / f"{seed}.jpg", seed=seed).read_bytes()


def write(file: Path, **members: Any) -> Path:
    """Write a tar file of members, whose names have "_DOT_" for a dot and "__" for a slash."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
            member = tarfile.TarInfo(name.replace("_DOT_", ".").replace("__", "/"))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_the_forms_of_json(tmp_path: Path, jpeg: Callable[[int], bytes], form: str, suffix: str) -> None:
    file = write(tmp_path / "data" / f"x{suffix}", ä_1_DOT_jpg=jpeg(0), ä_1_DOT_json=FORMS[form], ä_1_DOT_cls=b"3")
    for spec in (str(tmp_path / "data"), str(file), f"webdataset:{file}"):
        rows = load_data(spec)["train"]
        assert class_names(rows) == ["Käse", "dog"]
        assert rows[0]["objects"]["bbox"] == BOXES
        assert rows[0]["objects"]["category"] == [1, 0]
        assert rows[0]["image"]["path"] == str(file / "ä_1.jpg")
        assert open_image(rows[0]["image"]).size == (rows[0]["width"], rows[0]["height"]) == (40, 30)


def test_crowds_and_numbers_as_classes(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    write(tmp_path / "data" / "x.tar", a_DOT_jpg=jpeg(0), a_DOT_json={"annotations": ANNOTATIONS})
    rows = load_data(str(tmp_path / "data"))["train"]
    assert class_names(rows) == ["1", "2"]
    assert rows[0]["objects"]["iscrowd"] == [False, True]


def test_the_format_of_boxes_is_recognized_or_given(
    tmp_path: Path, jpeg: Callable[[int], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    fractions = [[0.5, 0.5, 0.5, 0.4]] * 40
    file = write(
        tmp_path / "x.tar", a_DOT_jpg=jpeg(0), a_DOT_json={"objects": {"bbox": fractions, "category": ["cat"] * 40}}
    )
    with caplog.at_level(logging.INFO):
        boxes = load_data(f"webdataset:{file}", box_format="cxcywh-fractions")["train"][0]["objects"]["bbox"]
    assert boxes == [pytest.approx([10, 9, 20, 12])] * 40
    file = write(
        tmp_path / "y.tar",
        a_DOT_jpg=jpeg(0),
        a_DOT_json={"objects": {"bbox": [[25, 20, 38, 29]] * 40, "category": ["cat"] * 40}},
    )
    assert load_data(str(file))["train"][0]["objects"]["bbox"] == [[25, 20, 13, 9]] * 40


def test_splits_are_in_the_names_of_shards_or_folders(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    content = FORMS["mapping of lists"]
    for index, name in enumerate(("train-000000", "train-000001", "val-000000")):
        write(tmp_path / "names" / f"{name}.tar", a_DOT_jpg=jpeg(index), a_DOT_json=content)
    for index, name in enumerate(("train/0", "test/0")):
        write(tmp_path / "folders" / f"{name}.tar", a_DOT_jpg=jpeg(index), a_DOT_json=content)
        write(tmp_path / "inside" / "x.tar", train__a_DOT_jpg=jpeg(0), train__a_DOT_json=content,
              val__a_DOT_jpg=jpeg(1), val__a_DOT_json=content)  # fmt: skip
    sizes = {
        folder: {split: len(rows) for split, rows in load_data(str(tmp_path / folder)).items()}
        for folder in ("names", "folders", "inside")
    }
    assert sizes == {
        "names": {"train": 2, "validation": 1},
        "folders": {"train": 1, "test": 1},
        "inside": {"train": 1, "validation": 1},
    }


def test_samples_with_masks_and_without_annotations(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    write(
        tmp_path / "x.tar",
        __MACOSX___DOT__a_DOT_jpg=b"junk",
        a_DOT_mask_DOT_png=jpeg(5),
        a_DOT_jpg=jpeg(0),
        a_DOT_json=FORMS["mapping of lists"],
        b_DOT_jpg=jpeg(1),
        c_DOT_json=FORMS["list alone"],
    )
    file = tmp_path / "x.tar"
    assert [Path(row["image"]["path"]).name for row in load_data(str(file))["train"]] == ["a.jpg"]
    assert len(load_data(str(file), unlabeled="skip")["train"]) == 1
    data = load_source_data(str(file), unlabeled="background")
    assert [Path(row["image"]["path"]).name for row in data.splits["train"]] == ["a.jpg", "b.jpg"]
    assert data.unlabeled["train"] == (1,)
    unlabeled = next(problem for problem in data.problems if problem.kind == "unlabeled")
    assert unlabeled.message == f"{file / 'b.jpg'}: has no labels; it is read as an image without objects"
    lost = next(problem for problem in data.problems if problem.kind == "lost annotation")
    assert (lost.message, lost.count) == (
        f"{tmp_path / 'x.tar'}: image 'c': has a JSON file and no image", 2,
    )  # fmt: skip


def test_unreadable_annotations_are_problems_of_their_image(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    contents = [
        b"{",
        b"\xff",
        {"caption": "a cat"},
        {"objects": {"bbox": [[1, 2, 3]], "category": ["cat"]}},
        {"objects": {"bbox": [[1, 2, 3, 4]], "category": []}},
        {"annotations": [ANNOTATIONS[0] | {"category_id": 9}], "categories": CATEGORIES},
        {"objects": 3},
        FORMS["mapping of lists"],
    ]
    members: dict[str, Any] = {}
    for index, content in enumerate(contents):
        members |= {f"{index}_DOT_jpg": jpeg(index), f"{index}_DOT_json": content}
    file = write(tmp_path / "x.tar", **members)
    with pytest.raises(DefectiveDataError) as caught:
        load_data(f"webdataset:{file}")
    problems = caught.value.data.problems
    assert [problem.row for problem in problems] == list(range(7))
    assert all(problem.message.startswith(f"{file}: image '{problem.row}': ") for problem in problems)
    assert caught.value.data.splits["train"][7]["objects"]["bbox"] == BOXES


def test_damaged_files(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    content = FORMS["mapping of lists"]
    file = write(tmp_path / "x.tar", a_DOT_jpg=jpeg(0), a_DOT_json=content, b_DOT_jpg=jpeg(1), b_DOT_json=content)
    with tarfile.open(file) as tar:
        inside_last_image = tar.getmember("b.jpg").offset_data + 100
    file.write_bytes(file.read_bytes()[:inside_last_image])
    data = load_source_data(f"webdataset:{file}")
    assert data.refused
    assert "can't be read after" in data.refused[0].message
    assert len(data.splits["train"][0]["objects"]["bbox"]) == 2
    file.write_bytes(b"no tar file")
    with pytest.raises(InputError, match="can't be read after 0 samples"):
        load_data(f"webdataset:{file}")


def test_an_image_that_is_damaged_or_repeated(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    content = FORMS["mapping of lists"]
    file = write(tmp_path / "x.tar", a_DOT_jpg=b"no image", a_DOT_json=content, b_DOT_jpg=jpeg(1), b_DOT_json=content)
    rows = load_data(str(file))["train"]
    assert (rows[0]["width"], len(rows[0]["objects"]["bbox"])) == (0, 2)
    with tarfile.open(file, "a") as tar:
        member = tarfile.TarInfo("b.jpg")
        member.size = len(jpeg(2))
        tar.addfile(member, io.BytesIO(jpeg(2)))
    (problem,) = load_source_data(str(file)).problems
    assert "b.jpg occurs twice" in problem.message


def test_files_that_are_none_of_webdataset(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    with pytest.raises(InputError, match="no tar file of WebDataset"):
        load_data(f"webdataset:{tmp_path}")
    write(tmp_path / "images.tar", a_DOT_jpg=jpeg(0))
    with pytest.raises(InputError, match="format not recognized"):
        load_data(str(tmp_path / "images.tar"))


def boxes_of(file: Path, **options: Any) -> dict[str, int]:
    """The number of boxes of each image."""
    rows = load_source_data(f"webdataset:{file}", **options).splits["train"]
    return {
        str(Path(row["image"]["path"]).relative_to(file.absolute())): len(row["objects"]["bbox"])
        for row in rows.cast_column("image", Image(decode=False))
    }


def test_names_with_dots_are_samples_of_their_own(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    members: dict[str, Any] = {}
    for index in range(3):
        members |= {f"d__frame_DOT_{index}_DOT_jpg": jpeg(index), f"d__frame_DOT_{index}_DOT_mask_DOT_png": jpeg(9)}
        members |= {
            f"d__frame_DOT_{index}_DOT_json": {"objects": {"bbox": BOXES[: index + 1], "category": NAMES[: index + 1]}}
        }
    file = write(
        tmp_path / "x.tar", **members, d__frame_DOT_7_DOT_jpg=jpeg(7), d__frame_DOT_8_DOT_json=FORMS["list alone"]
    )  # fmt: skip
    assert boxes_of(file) == {"d/frame.0.jpg": 1, "d/frame.1.jpg": 2, "d/frame.2.jpg": 2}
    assert boxes_of(file, unlabeled="background") == {**boxes_of(file), "d/frame.7.jpg": 0}
    assert [(one.kind, one.count) for one in load_source_data(str(file)).problems] == [("lost annotation", 2)]


def test_images_that_share_a_json_file_are_problems(tmp_path: Path, jpeg: Callable[[int], bytes]) -> None:
    content = FORMS["mapping of lists"]
    file = write(tmp_path / "x.tar", a_DOT_left_DOT_jpg=jpeg(0), a_DOT_right_DOT_jpg=jpeg(1), a_DOT_json=content,
                 b_DOT_jpg=jpeg(2), b_DOT_json=content)  # fmt: skip
    data = load_source_data(f"webdataset:{file}")
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", row) for row in (0, 1)]
    assert data.problems[0].message == (
        f"{file}: image 'a.left': a.json belongs to 2 images. Write a JSON file for each"
    )


def test_json_files_and_images_of_one_sample(tmp_path: Path, jpeg: Callable[[int], bytes], write_image: Write) -> None:
    content = FORMS["mapping of lists"]
    mask = write_image(tmp_path / "originals" / "mask.png").read_bytes()
    file = write(
        tmp_path / "x.tar",
        a_DOT_png=mask, a_DOT_jpg=jpeg(0), a_DOT_json=content, a_DOT_meta_DOT_json={"camera": 3},
        b_DOT_0_DOT_jpg=jpeg(1), b_DOT_0_DOT_boxes_DOT_json=content, b_DOT_1_DOT_jpg=jpeg(2), b_DOT_1_DOT_json=content,
        c_DOT_photo_DOT_jpg=jpeg(3), c_DOT_boxes_DOT_json=content,
    )  # fmt: skip
    assert boxes_of(file) == {"a.jpg": 2, "b.0.jpg": 2, "b.1.jpg": 2, "c.photo.jpg": 2}
    assert load_source_data(str(file)).problems == ()
