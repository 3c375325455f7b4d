"""COCO files in their layouts, and errors in wrong ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names, detection_objects
from detr_ft.data.sources.coco import CocoFile
from detr_ft.data.sources.load import load_data, load_source_data, read_category_ids
from detr_ft.data.sources.problems import num_unread
from detr_ft.errors import InputError


def test_boxes_area_and_crowd_are_read_and_categories_become_contiguous(
    tmp_path: Path, write_coco_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = write_coco_file(tmp_path / "labels.json")
    with caplog.at_level(logging.INFO):
        data = load_data(f"coco:{file}")
    assert list(data) == ["train"]
    assert class_names(data["train"]) == ["cat", "dog"]
    assert "left out: root" in caplog.text
    assert data["train"][0] == {
        "image": {"path": str(tmp_path / "0_0.png"), "bytes": None},
        "image_id": 5,
        "width": 40,
        "height": 30,
        "objects": detection_objects([[1.0, 2.0, 10.5, 4.0]], [1], ids=[1], area=[30.0], iscrowd=[True]),
    }
    assert data["train"][1]["objects"]["area"] == [1200.0]


def test_roboflow_layout_has_one_class_list_over_all_splits(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    write_coco_file(tmp_path / "train" / "_annotations.coco.json")
    extra = [{"id": 0, "name": "dog"}, {"id": 3, "name": "bird"}]
    boxes = [{"id": 1, "image_id": 5, "category_id": i, "bbox": [0, 0, 1, 1]} for i in (0, 3)]
    boxes[1]["id"] = 2
    write_coco_file(tmp_path / "valid" / "_annotations.coco.json", seed=1, categories=extra, annotations=boxes)
    data = load_data(f"coco:{tmp_path}")
    assert list(data) == ["train", "validation"]
    assert class_names(data["train"]) == class_names(data["validation"]) == ["cat", "dog", "bird"]
    assert data["validation"][0]["objects"]["category"] == [1, 2]


@pytest.mark.parametrize("images", ["val2017", "images/val2017", "images", "val"])
def test_official_layout(tmp_path: Path, images: str, write_coco_file: Callable[..., Path]) -> None:
    write_coco_file(tmp_path / "annotations" / "instances_val2017.json", tmp_path / images)
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    data = load_data(str(tmp_path))
    assert list(data) == ["validation"]
    assert Path(data["validation"][0]["image"]["path"]).is_file()


def test_defective_boxes_stay_for_the_doctor(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    boxes = [[0, 0, 0, 0], [-9, 1, 999, 2], [float("nan"), 0, float("inf"), -3]]
    rows = [{"id": i, "image_id": 5, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)]
    file = write_coco_file(tmp_path / "a.json", annotations=rows)
    data = load_data(f"coco:{file}")["train"]
    assert str(data[0]["objects"]["bbox"]) == str([[float(v) for v in box] for box in boxes])


def test_all_problems_are_reported_at_once(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    rows = [
        {"id": 1, "image_id": 5, "category_id": 99, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1]},
        {"id": 4, "image_id": [5], "category_id": 1, "bbox": [0, 0, None, 1]},
    ]
    images = [{"id": 5, "file_name": "0_0.png"}, {"id": "x", "file_name": "0_1.png"}, {"id": "y"}, 3]
    file = write_coco_file(tmp_path / "a.json", annotations=rows, images=images)
    problems = load_source_data(f"coco:{file}").problems
    expected = {
        ("unknown class", "annotation 1: category 99"),
        ("lost annotation", "annotation 2: image 77"),
        ("repeated id", "annotation 2: the id occurs twice"),
        ("unreadable annotation", "annotation 2: bbox"),
        ("lost annotation", "annotation 4: image [5]"),
        ("lost annotation", "images[3]: must be a mapping"),
        ("lost annotation", "image 'y': must have a file_name"),
        ("unreadable annotation", "0_1.png has no annotations, while 1 images"),
    }
    assert expected == {
        (kind, part) for kind, part in expected for one in problems if one.kind == kind and part in one.message
    }
    assert len(problems) == len(expected)
    assert all(str(file) in problem.message for problem in problems)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a COCO file"),
        ("{}", "'categories' must be a list"),
        ('{"images": [], "annotations": [], "categories": []}', "no images"),
        (
            '{"images": [{"id": 1, "file_name": "no.png"}], "annotations": [], "categories": []}',
            "in none of these folders",
        ),
        (
            f'{{"images": [{{"id": 1, "file_name": "{"n" * 300}.png"}}], "annotations": [], "categories": []}}',
            "in none of these folders",
        ),
    ],
)
def test_a_file_that_is_no_data_set(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_data(f"coco:{tmp_path / 'a.json'}")


def test_two_files_for_one_split(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    for year in ("2014", "2017"):
        write_coco_file(tmp_path / "annotations" / f"instances_train{year}.json")
    with pytest.raises(InputError, match=r"several coco files for split train.*as in coco:.*instances_train2014"):
        load_data(f"coco:{tmp_path}")


@pytest.mark.parametrize(
    "names",
    [
        ("annotations/instances_train.json", "annotations/val.json"),
        ("annotations/instances_train.json", "val.json"),
        ("instances.json", "valid/_annotations.coco.json"),
        ("a/deep/train.json", "b/val.json"),
    ],
)
def test_every_file_of_a_folder_is_read(
    tmp_path: Path, write_coco_file: Callable[..., Path], names: tuple[str, str]
) -> None:
    for seed, name in enumerate(names):
        write_coco_file(tmp_path / name, seed=seed)
    data = load_data(str(tmp_path))
    assert {split: [Path(row["image"]["path"]).name for row in rows] for split, rows in data.items()} == {
        "train": ["0_0.png", "0_1.png"],
        "validation": ["1_0.png", "1_1.png"],
    }


@pytest.mark.parametrize(
    "names", [("train.json", "extra.json"), ("a/x.json", "b/x.json"), ("train/a.json", "all.json")]
)
def test_files_of_one_split_in_any_folders_are_refused_by_name(
    tmp_path: Path, write_coco_file: Callable[..., Path], names: tuple[str, str]
) -> None:
    for seed, name in enumerate(names):
        write_coco_file(tmp_path / name, seed=seed)
    with pytest.raises(InputError, match=r"several coco files for split train") as caught:
        load_data(str(tmp_path))
    assert all(str(tmp_path / name) in str(caught.value) for name in names)
    assert f"as in coco:{min(tmp_path / name for name in names)}, or" in str(caught.value)


def test_files_of_captions_and_keypoints_beside_instances_are_not_read(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    for name in ("instances", "captions", "person_keypoints", "panoptic", "stuff", "image_info"):
        write_coco_file(tmp_path / f"annotations/{name}_train2017.json", tmp_path / "train2017")
    assert {split: len(rows) for split, rows in load_data(str(tmp_path)).items()} == {"train": 2}


def test_a_file_of_keypoints_is_read_if_no_other_file_has_its_split(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    write_coco_file(tmp_path / "annotations/instances_train.json", tmp_path / "train")
    write_coco_file(tmp_path / "annotations/person_keypoints_val.json", tmp_path / "val", seed=1)
    write_coco_file(tmp_path / "annotations/image_info_test.json", tmp_path / "test", seed=2)
    assert {split: len(rows) for split, rows in load_data(str(tmp_path)).items()} == {"train": 2, "validation": 2}


def test_a_damaged_file_of_a_split_is_an_error(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    write_coco_file(tmp_path / "train/_annotations.coco.json")
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid/_annotations.coco.json").write_text("\x00" * 9)
    (tmp_path / "settings.json").write_text("// no data")
    with pytest.raises(InputError, match=r"valid/_annotations\.coco\.json: not valid JSON"):
        load_data(str(tmp_path))


@pytest.mark.parametrize("result", [{"image_id": 5, "bbox": [1, 2, 3, 4]}, {"bbox": [1.5, 2, 3, 4], "image_id": 5}])
def test_detections_beside_annotations_do_not_change_the_format(
    tmp_path: Path, write_coco_file: Callable[..., Path], result: dict[str, object]
) -> None:
    write_coco_file(tmp_path / "instances.json")
    for name in "abc":
        (tmp_path / f"{name}.json").write_text(json.dumps([{**result, "category_id": 1, "score": 0.5}]))
    assert {split: len(rows) for split, rows in load_data(str(tmp_path)).items()} == {"train": 2}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_in_another_encoding_is_recognized(
    tmp_path: Path, write_coco_file: Callable[..., Path], encoding: str
) -> None:
    file = write_coco_file(tmp_path / "a.json")
    file.write_bytes(file.read_text().encode(encoding))
    for spec in (str(tmp_path), str(file)):
        assert load_data(spec)["train"]["image_id"][:] == [5, 6]


def test_without_a_bbox_the_box_is_that_around_the_segmentation(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    runs = {"size": [30, 40], "counts": [30 * 5 + 2, 4, 26, 4, 30 * 34 - 6]}  # columns 5 and 6, rows 2 to 5
    shapes = [[[3, 4, 9, 4, 9, 20.5], [1, 6, 2, 6, 2, 8]], runs, {**runs, "counts": "n27g000000000000000000Vi0"}]
    rows = [{"id": i, "image_id": 5, "category_id": 1, "segmentation": shape} for i, shape in enumerate(shapes)]
    rows[1] |= {"bbox": None, "iscrowd": 1, "area": 8}
    rows.append({**rows[0], "id": 3, "bbox": [0, 0, 1, 1]})
    objects = load_data(f"coco:{write_coco_file(tmp_path / 'a.json', annotations=rows)}")["train"][0]["objects"]
    assert objects["bbox"] == [[1, 4, 8, 16.5], [5, 2, 2, 4], [3, 4, 10, 7], [0, 0, 1, 1]]
    assert objects["iscrowd"] == [False, True, False, False]
    assert objects["area"][1] == 8


@pytest.mark.parametrize(
    "name", ["sub\\a b.png", "./sub/a b.png", "https://example.org/files/a%20b.png?width=9", "/home/me/sub/a b.png"]
)
def test_ids_as_text_and_names_in_any_spelling_of_paths(
    tmp_path: Path, write_coco_file: Callable[..., Path], write_image: Callable[..., Path], name: str
) -> None:
    image = write_image(tmp_path / "images" / "sub" / "a b.png")
    images = [{"id": "3", "file_name": name, "width": 40, "height": 30}]
    rows = [{"id": "12", "image_id": 3, "category_id": "07", "bbox": [0, 0, 1, 1]}]
    file = write_coco_file(
        tmp_path / "labels.json", images=images, annotations=rows, categories=[{"id": 7.0, "name": " cat "}]
    )
    data = load_data(f"coco:{file}")["train"]
    assert data[0]["image"]["path"] == str(image)
    assert class_names(data) == ["cat"]
    assert (data[0]["image_id"], data[0]["objects"]["id"]) == (3, [12])


def test_images_anywhere_below_the_file_are_found_by_their_names(
    tmp_path: Path, write_coco_file: Callable[..., Path], write_image: Callable[..., Path]
) -> None:
    file = write_coco_file(tmp_path / "labels.json", folder=tmp_path / "a" / "deep")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "deep" / "0_1.png").rename(tmp_path / "b" / "0_1.png")
    paths = [image["path"] for image in load_data(str(file))["train"]["image"]]
    assert paths == [str(tmp_path / "a" / "deep" / "0_0.png"), str(tmp_path / "b" / "0_1.png")]
    write_image(tmp_path / "c" / "0_1.png")
    with pytest.raises(InputError, match=r"image 6: the image 0_1\.png is ambiguous: .*b/0_1\.png, .*c/0_1\.png"):
        load_data(str(file))


def test_images_are_searched_for_unless_most_are_at_their_stated_paths(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    file = write_coco_file(tmp_path / "labels.json")
    (tmp_path / "b").mkdir()
    (tmp_path / "0_1.png").rename(tmp_path / "b" / "0_1.png")
    paths = [image["path"] for image in load_data(str(file))["train"]["image"]]
    assert paths == [str(tmp_path / "0_0.png"), str(tmp_path / "b" / "0_1.png")]


def test_a_missing_image_is_not_replaced_by_its_namesake_of_another_split(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    for split in ("train", "val"):
        write_coco_file(tmp_path / "annotations" / f"instances_{split}2017.json", tmp_path / f"{split}2017")
    images = [{"id": i, "file_name": f"0_{i % 2}.png", "width": 40, "height": 30} for i in range(2, 6)]
    images[3]["file_name"] = "only_in_val.png"
    (tmp_path / "val2017" / "0_1.png").rename(tmp_path / "val2017" / "only_in_val.png")
    write_coco_file(
        tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017", images=images, annotations=[]
    )
    paths = [image["path"] for image in load_data(str(tmp_path))["train"]["image"]]
    assert paths == [str(tmp_path / "train2017" / name) for name in ("0_0.png", "0_1.png", "only_in_val.png")]


def test_a_file_without_annotations_is_an_error_unless_their_list_is_empty(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    file = write_coco_file(tmp_path / "image_info_test2017.json")
    content = json.loads(file.read_text())
    for lost in ({}, {"annotations": None}):
        del content["annotations"]
        content |= lost
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match="'annotations' must be a list, which is empty if no image has objects"):
            load_data(f"coco:{file}")
        content["annotations"] = []
    file.write_text(json.dumps(content))
    data = load_source_data(str(file))
    assert [objects["bbox"] for objects in data.splits["train"]["objects"]] == [[], []]
    assert data.problems == ()


def test_categories_of_one_name_become_one_class(
    tmp_path: Path, write_coco_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = write_coco_file(tmp_path / "a.json", categories=[{"id": i, "name": "cat"} for i in (7, 1)])
    data = load_data(f"coco:{file}")["train"]
    assert class_names(data) == ["cat"]
    assert f"{file}: categories 1, 7 " in caplog.text


def test_wrong_segmentations_addresses_and_many_equal_problems(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    shapes = [[[1, 2, 3]], {"size": [30, 40], "counts": [9999]}, {"size": [30, 40], "counts": "zzzzzzz"}, {"size": 3}]
    rows = [{"id": i, "image_id": 5, "category_id": 1, "segmentation": shape} for i, shape in enumerate(shapes)]
    rows += [{"id": 100 + i, "image_id": 5, "category_id": 1000 + i, "bbox": [0, 0, 1, 1]} for i in range(400)]
    images = [{"id": 5, "file_name": "0_0.png"}]
    file = write_coco_file(tmp_path / "a.json", annotations=rows, images=images)
    with pytest.raises(InputError) as caught:
        load_data(f"coco:{file}")
    starts = [
        *(f"{file}: annotation {i}: has no bbox" for i in range(3)),
        "... and 1 more",
        *(f"{file}: annotation {100 + i}: category {1000 + i} " for i in range(3)),
        "... and 397 more",
        "1 images have objects",
    ]
    assert [problem[: len(start)] for problem, start in zip(caught.value.problems, starts, strict=True)] == starts


def test_chess_pieces(real_data: Callable[[str], Path]) -> None:
    data = load_data(str(real_data("chess_coco")))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 202, "validation": 58, "test": 29}
    assert sum(len(objects["bbox"]) for rows in data.values() for objects in rows["objects"]) == 2870
    assert len(class_names(data["train"])) == 13
    assert "pieces" not in class_names(data["train"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0.png", r"a\\x00\.png.*Rename the file"),
        ("\ud800.png", r"ud800\.png.*Rename the file"),
    ],
)
def test_names_that_no_file_has(tmp_path: Path, write_coco_file: Callable[..., Path], name: str, message: str) -> None:
    images = [{"id": i, "file_name": one, "width": 40, "height": 30} for i, one in ((5, "0_0.png"), (6, name))]
    with pytest.raises(InputError, match=message):
        load_data(f"coco:{write_coco_file(tmp_path / 'a.json', images=images)}")


def test_an_image_without_a_name_is_left_out(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    images = [{"id": i, "file_name": one, "width": 40, "height": 30} for i, one in ((5, "0_0.png"), (6, "."))]
    data = load_source_data(f"coco:{write_coco_file(tmp_path / 'a.json', images=images)}")
    assert data.splits["train"]["image_id"][:] == [5]
    assert next((one.kind, "image 6" in one.message) for one in data.problems) == ("lost annotation", True)


def test_lvis_images_by_url(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    images = [{"id": 5, "coco_url": "http://images.cocodataset.org/train2017/0_0.png", "width": 40, "height": 30}]
    file = write_coco_file(tmp_path / "lvis.json", tmp_path / "train2017", images=images, annotations=[])
    assert load_data(f"coco:{file}")["train"][0]["image"]["path"] == str(tmp_path / "train2017/0_0.png")


def test_segments_of_panoptic_files_are_objects_except_stuff(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    segments = [
        {"id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 10, "category_id": 7, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 0},
    ]
    rows = [{"image_id": 5, "file_name": "0_0_mask.png", "segments_info": segments}]
    categories = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]
    file = write_coco_file(tmp_path / "panoptic_train.json", annotations=rows, categories=categories)
    data = load_source_data(f"coco:{file}")
    assert data.problems == ()
    assert class_names(data.splits["train"]) == ["cat"]
    assert data.splits["train"][0]["objects"]["bbox"] == [[1, 2, 3, 4]]


def test_image_ids_that_are_texts(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    images = [{"id": f"img-{i}", "file_name": f"0_{i}.png", "width": 40, "height": 30} for i in range(2)]
    rows = [{"id": i, "image_id": f"img-{i}", "category_id": 1, "bbox": [i, 0, 5, 5]} for i in range(2)]
    file = write_coco_file(tmp_path / "a.json", images=images, annotations=rows)
    assert [objects["bbox"] for objects in load_data(f"coco:{file}")["train"]["objects"]] == [
        [[0, 0, 5, 5]], [[1, 0, 5, 5]],
    ]  # fmt: skip


def test_images_that_share_an_id_are_refused_since_their_annotations_are_unclear(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    images = [{"id": 5, "file_name": f"0_{i}.png", "width": 40, "height": 30} for i in (0, 1, 0)]
    data = load_source_data(f"coco:{write_coco_file(tmp_path / 'a.json', images=images, annotations=[])}")
    assert len(data.splits["train"]) == 2  # one of them is listed twice
    assert sorted((one.kind, one.row) for one in data.problems) == [
        ("repeated id", None), ("unreadable annotation", 0), ("unreadable annotation", 1),
    ]  # fmt: skip


def test_splits_of_one_file_are_the_folders_of_its_images(
    tmp_path: Path, write_coco_file: Callable[..., Path], write_image: Callable[..., Path]
) -> None:
    for name in ("train/0.png", "test/1.png"):
        write_image(tmp_path / name)
    images = [{"id": i, "file_name": name} for i, name in enumerate(("train/0.png", "test/1.png"))]
    file = write_coco_file(tmp_path / "a.json", images=images, annotations=[])
    assert {split: rows["image_id"][:] for split, rows in load_data(f"coco:{file}").items()} == {
        "train": [0], "test": [1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected", "line"),
    [
        (
            ["photos/0.png", "photos/1.png", "test/2.png"],
            {"train": [0, 1], "test": [2]},
            "split by the folders of the images: train 2 (folders without a split word), test 1",
        ),
        (
            ["0.png", "train/1.png", "hold-out/2.png", "eval/3.png"],
            {"train": [0, 1], "validation": [3], "test": [2]},
            "split by the folders of the images: train 2 (1 in folders without a split word), validation 1, test 1",
        ),
        (["a/0.png", "train/1.png"], {"train": [0, 1]}, "nothing names a split: train 2"),
        (["test/0.png", "test/1.png"], {"train": [0, 1]}, "nothing names a split: train 2"),
        (["a/test/0.png", "b/test/1.png"], {"train": [0, 1]}, "nothing names a split: train 2"),
    ],
)
def test_one_folder_of_validation_or_test_is_enough_for_splits(
    tmp_path: Path,
    write_coco_file: Callable[..., Path],
    write_image: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    expected: dict[str, list[int]],
    line: str,
) -> None:
    for name in names:
        write_image(tmp_path / name)
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    file = write_coco_file(tmp_path / "a.json", images=images, annotations=[])
    with caplog.at_level(logging.INFO):
        data = load_data(f"coco:{file}")
    assert {split: rows["image_id"][:] for split, rows in data.items()} == expected
    assert f"{file}: {line}" in caplog.messages


def test_a_file_named_outright_is_the_train_split(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    file = write_coco_file(tmp_path / "test" / "instances_val.json")
    assert list(load_data(f"coco:{file}")) == ["train"]


def test_a_folder_as_image_is_left_to_the_doctor(
    tmp_path: Path, write_coco_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sub.png").mkdir()
    images = [{"id": i, "file_name": one} for i, one in ((5, "0_0.png"), (6, "sub.png"))]
    row = load_data(f"coco:{write_coco_file(tmp_path / 'a.json', images=images)}")["train"][1]
    assert (row["width"], row["height"]) == (0, 0)
    assert "sub.png: not a readable image" in caplog.text


def test_classes_that_cannot_be_written_and_invalid_flags(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"the class '\\udc80' .*Rename it"):
        load_data(
            f"coco:{write_coco_file(tmp_path / 'a.json', categories=[{'id': i, 'name': chr(0xDC80)} for i in (1, 7)])}"
        )
    rows = [
        {"id": i, "image_id": 5, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": stated}
        for i, stated in enumerate(("False", "0", "yes", "rle"))
    ]
    with pytest.raises(InputError, match=r"annotation 3: iscrowd must be yes .* got 'rle'"):
        load_data(f"coco:{write_coco_file(tmp_path / 'a.json', annotations=rows)}")
    objects = load_data(f"coco:{write_coco_file(tmp_path / 'a.json', annotations=rows[:3])}")["train"][0]["objects"]
    assert objects["iscrowd"] == [False, False, True]


def test_category_ids_are_those_of_the_file(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    spec = f"coco:{write_coco_file(tmp_path / 'a.json')}"
    expected = {7: "dog", 0: "root", 1: "cat"}
    assert load_source_data(spec).category_ids == expected
    assert read_category_ids(spec) == read_category_ids(str(tmp_path)) == expected
    assert read_category_ids("generated:shapes?train=2&validation=0&edge=64") == {}


def test_category_ids_are_read_without_images(
    tmp_path: Path, write_coco_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_coco_file(tmp_path / "a.json")
    monkeypatch.setattr(CocoFile, "_add_images", lambda *_: pytest.fail("images were read"))
    assert read_category_ids(f"coco:{file}")[7] == "dog"


def test_the_numbers_of_objects_add_up(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    """One object is read, two are of an id of two images, and one is of an unknown image."""
    names = ((5, "0_0.png"), (6, "0_1.png"), (6, "0_2.png"), (7, "0_3.png"))
    images = [{"id": number, "file_name": name, "width": 40, "height": 30} for number, name in names]
    rows = [{"id": i, "image_id": n, "category_id": 1, "bbox": [1, 1, 5, 5]} for i, n in enumerate((5, 6, 6, 9))]
    data = load_source_data(f"coco:{write_coco_file(tmp_path / 'a.json', annotations=rows, images=images)}")
    assert num_unread(data.problems) == 3
    assert sum(len(row["objects"]["bbox"]) for row in data.splits["train"]) == 1
    assert sorted({one.row for one in data.refused if one.row is not None}) == [1, 2, 3]


@pytest.mark.parametrize(("orphans", "refused"), [(0, 0), (1, 4), (2, 4)])
def test_images_without_annotations_are_suspected_beside_unknown_images(
    tmp_path: Path, write_coco_file: Callable[..., Path], orphans: int, refused: int
) -> None:
    """One of five images has an annotation; those of unknown images could be the others' own."""
    images = [{"id": i, "file_name": f"0_{i}.png", "width": 40, "height": 30} for i in range(5 if orphans != 1 else 6)]
    owners = [0, *(100 + number for number in range(orphans))]
    rows = [{"id": i, "image_id": owner, "category_id": 1, "bbox": [1, 1, 5, 5]} for i, owner in enumerate(owners)]
    data = load_source_data(f"coco:{write_coco_file(tmp_path / 'a.json', annotations=rows, images=images)}")
    assert len(data.refused) == (0 if orphans == 1 else refused)


def test_a_bbox_of_zeros_beside_a_polygon_and_category_names_that_are_numbers(
    tmp_path: Path, write_coco_file: Callable[..., Path]
) -> None:
    polygon = [[2, 3, 12, 3, 12, 9]]
    rows = [{"id": 1, "image_id": 5, "category_id": 1, "bbox": [0, 0, 0, 0], "segmentation": polygon}]
    images = [{"id": 5, "file_name": "0_0.png", "width": 40, "height": 30}]
    file = write_coco_file(tmp_path / "a.json", annotations=rows, images=images, categories=[{"id": 1, "name": 7}])
    data = load_data(f"coco:{file}")["train"]
    assert data[0]["objects"]["bbox"] == [[2, 3, 10, 6]]
    assert class_names(data) == ["7"]
