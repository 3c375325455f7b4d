"""YOLO data sets: locations of images and labels, rows, and errors in wrong ones."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from detr_ft.data.doctor.checks import file_findings
from detr_ft.data.integrity.scan import scan_dataset
from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.data.sources.problems import num_unread
from detr_ft.errors import InputError


def test_roboflow_paths_background_images_and_pixels(yolo: Path) -> None:
    data = load_data(f"yolo:{yolo / 'data.yaml'}")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 2}
    assert class_names(data["train"]) == ["cone", "cube"]
    row = data["train"][0]
    assert (row["width"], row["height"]) == (40, 30)
    assert row["objects"]["bbox"] == [pytest.approx([15, 12, 10, 6])]
    assert row["objects"]["category"] == [1]
    assert data["train"][1]["objects"]["bbox"] == []


def test_polygons_become_boxes(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("0 0.25 0.5 0.5 0.1 0.75 0.9\n")
    assert load_data(str(yolo))["train"][0]["objects"]["bbox"] == [pytest.approx([10, 3, 20, 24])]


def test_turned_boxes_and_rows_in_any_spacing(yolo: Path) -> None:
    text = "0 0.25 0.1 0.5 0.2 0.4 0.9 0.3 0.8\r\n\t1\t0.5\t0.5  0.5 0.5 \r\n   \r\n"
    (yolo / "train" / "labels" / "a.txt").write_bytes(text.encode())
    boxes = load_data(str(yolo))["train"][0]["objects"]["bbox"]
    assert boxes == [pytest.approx([10, 3, 10, 24]), pytest.approx([10, 7.5, 20, 15])]


@pytest.mark.parametrize("each", [2, 3])
def test_rows_of_keypoints_are_boxes_by_kpt_shape(yolo: Path, each: int) -> None:
    points = " 0.9 0.1 2"[: 8 if each == 2 else 10] * 4
    for split in ("train", "valid"):
        (yolo / split / "labels" / "a.txt").write_text(f"1 0.5 0.5 0.25 0.2{points}\n")
    with (yolo / "data.yaml").open("a") as file:
        file.write(f"kpt_shape: [4, {each}]\n")
    assert load_data(str(yolo))["train"][0]["objects"]["bbox"] == [pytest.approx([15, 12, 10, 6])]
    with (yolo / "train" / "labels" / "a.txt").open("a") as file:
        file.write("1 0.5 0.5 0.25 0.2 0.1 0.1\n")
    with pytest.raises(InputError, match=f"line 2: must be .* {4 * each} numbers of keypoints .*kpt_shape"):
        load_data(str(yolo))


def test_malformed_rows_are_reported_with_the_expected_form(yolo: Path) -> None:
    rows = "1 .5 .5 .25 .2 .97\n" * 5 + "1 .5 .5 .25 .2 .1 .1 2\n"
    (yolo / "train" / "labels" / "a.txt").write_text(rows)
    with pytest.raises(InputError) as caught:
        load_data(str(yolo))
    starts = [problem.partition("line ")[2][:22] for problem in caught.value.problems[:3]]
    assert starts == [f"{line}: must be a class and" for line in (1, 2, 3)]
    assert caught.value.problems[3] == "... and 2 more like the one above"
    assert "without a sixth number" in caught.value.problems[0]
    assert "set kpt_shape" in caught.value.problems[4]


def test_pixels_instead_of_fractions_are_one_error(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("1 20 15 8 6\n" * 300 + "0 0.5 0.5 1 1\n")
    with pytest.raises(InputError, match="300 of 302 rows") as caught:
        load_data(str(yolo))
    assert len(caught.value.problems) == 1
    assert "Divide x and widths" in str(caught.value)


def test_numbers_a_little_above_one_stay_for_the_doctor(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("1 1.02 0.5 0.3 0.2\n")
    assert load_data(str(yolo))["train"][0]["objects"]["bbox"] == [pytest.approx([34.8, 12, 12, 6])]


def test_label_files_without_an_image_are_logged(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("x", "y", "b"):
        (yolo / "train" / "labels" / f"{name}.txt").write_text("0 .5 .5 .1 .1\n" if name != "b" else "")
    (yolo / "train" / "labels" / "classes.txt").write_bytes("cône\ncube\n".encode("latin-1"))
    data = load_data(str(yolo))
    assert [len(objects["bbox"]) for objects in data["train"]["objects"]] == [1, 0]
    orphans = [record.getMessage() for record in caplog.records if "no image" in record.getMessage()]
    (line,) = orphans
    assert line.startswith(f"{yolo / 'train' / 'labels' / 'x.txt'}: 2 label files in {yolo / 'train' / 'labels'} ")


def test_paths_of_another_machine_are_located_by_their_tails(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["/home/me/set/train/images/a.png", "D:\\set\\train\\images\\b.png", "./valid/images/gone.png"]
    (yolo / "train.txt").write_text("\n".join(lines))
    (yolo / "data.yaml").write_text(
        "path: /content/set\ntrain: train.txt\nval: /content/set/valid/images\nnames: [cone, cube]\n"
    )
    data = load_data(str(yolo))
    paths = [Path(image["path"]) for image in data["train"]["image"]]
    assert paths == [yolo / place for place in ("train/images/a.png", "train/images/b.png", "valid/images/gone.png")]
    assert len(data["validation"]) == 2
    assert "/content/set/valid/images is not on this machine" in caplog.text
    (yolo / "train.txt").write_text("/home/me/elsewhere/a.png\n/home/me/elsewhere/b.png\n")
    with pytest.raises(InputError, match=r"train\.txt: none of its 2 images"):
        load_data(str(yolo))


def test_each_image_is_opened_once(yolo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()

    def counted(file: str, **options: object) -> Image.Image:
        opened[str(file)] += 1
        return original(file, **options)

    original = Image.open
    monkeypatch.setattr(Image, "open", counted)
    load_data(str(yolo))
    assert sorted(opened.values()) == [1, 1, 1, 1]


def test_names_may_be_a_mapping_with_gaps(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("9 0.5 0.5 1 1\n")
    (yolo / "data.yaml").write_text("train: train/images\nnames: {9: late, 1: early}\n")
    data = load_data(str(yolo))
    assert class_names(data["train"]) == ["early", "late"]
    assert data["train"][0]["objects"]["category"] == [1]


def test_path_key_text_lists_and_lists_of_folders(yolo: Path) -> None:
    (yolo / "lists").mkdir()
    (yolo / "lists" / "val.txt").write_text("./valid/images/a.png\n")
    text = f"path: {yolo}\ntrain: [train/images, valid/images]\nval: lists/val.txt\nnames: [cone, cube]\n"
    (yolo / "lists" / "set.yaml").write_text(text)
    data = load_data(f"yolo:{yolo / 'lists' / 'set.yaml'}")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 4, "validation": 1}
    assert len(data["validation"][0]["objects"]["bbox"]) == 1


def test_defective_boxes_stay_and_an_unreadable_image_does_too(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0 0\n0 9 9 1 1\n0 nan 0.5 0.1 0.1\n")
    (yolo / "valid" / "images" / "a.png").write_bytes(b"no image")
    data = load_data(str(yolo))
    assert len(data["train"][0]["objects"]["bbox"]) == 3
    assert (data["validation"][0]["width"], data["validation"][0]["height"]) == (0, 0)


def test_malformed_rows_are_collected_with_file_and_line(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n0 a b c d\n\n0 .5 .5 .1 .1 .9\n")
    (yolo / "valid" / "labels" / "a.txt").write_text("0.5 .5 .5 .1 .1\n")
    with pytest.raises(InputError) as caught:
        load_data(str(yolo))
    train, valid = (yolo / split / "labels" / "a.txt" for split in ("train", "valid"))
    starts = [f"{train}, line 3: ", f"{train}, line 5: ", f"{train}, line 2: class 2", f"{valid}, line 1: class 0.5"]
    assert len(caught.value.problems[:-1]) == 4
    assert all(problem.startswith(start) for problem, start in zip(caught.value.problems[:-1], starts, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("a: 1", "not a YOLO data set"),
        ("train: train/images", "names must be"),
        ("{train: train/images, names: [a, a]}", "'a' occurs twice"),
        ("{train: train/images, names: [yes, b]}", "class name True .*in quotes"),
        ("{train: train/images, names: [a, b], kpt_shape: 17}", "kpt_shape must be"),
        ("{train: nowhere, names: [a]}", "the images of train are not at nowhere"),
        ("{train: train/labels, names: [a]}", "no box.*in labels/"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("{train: train/images, names: [2001-99-99]}", "not valid YAML: month must be in 1..12"),
        ('{train: train/images, names: [!!int "x"]}', "not valid YAML"),
        ("{train: train/images, names: [!!timestamp x]}", "not valid YAML"),
        (f"{{train: train/images, names: {'[' * 5000}", "not valid YAML: nested too deeply"),
        ("{train: train/images, nc: 0}", "nc must be the number of classes, got 0"),
        ("{train: train/images, nc: 999999999}", "nc must be the number of classes, got 999999999"),
    ],
)
def test_a_yaml_file_that_is_wrong(yolo: Path, text: str, message: str) -> None:
    (yolo / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_data(f"yolo:{yolo}")


def test_another_number_of_classes_than_names_is_reported_and_the_names_are_used(yolo: Path) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write("nc: 7\n")
    data = load_source_data(str(yolo), unlabeled="skip")
    (problem,) = data.problems
    assert (problem.kind, problem.refused, num_unread(data.problems)) == ("contradiction", False, 0)
    assert problem.message == f"{yolo / 'data.yaml'}: nc must be 2, the number of names, got 7. The names are used"
    assert class_names(data.checked()["train"]) == ["cone", "cube"]
    (finding,) = file_findings(data.problems, scan_dataset(data.splits))
    assert (finding.kind, finding.level, finding.message) == ("contradiction", "warning", problem.message)


def test_a_missing_folder_of_validation_is_refused_but_the_rest_is_read(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: train/images\nval: nowhere\nnames: [cone, cube]\n")
    data = load_source_data(str(yolo))
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 2}
    (problem,) = data.refused
    assert problem.message.startswith(f"{yolo / 'data.yaml'}: the images of validation are not at nowhere ")
    assert num_unread(data.problems) == 0
    with pytest.raises(DefectiveDataError) as caught:
        data.checked()
    assert caught.value.problems == [problem.message]


def test_mistakes_of_a_yaml_file_are_reported_together(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: train/images\nval: nowhere\nnames: [a, a, b, b]\nkpt_shape: 17\n")
    with pytest.raises(InputError) as caught:
        load_source_data(str(yolo))
    expected = ["'a' occurs twice", "'b' occurs twice", "kpt_shape must be", "validation are not at nowhere"]
    assert len(caught.value.problems) == 4
    assert all(words in problem for words, problem in zip(expected, caught.value.problems, strict=True))


def test_a_stated_test_split_that_wasnt_exported_is_left_out(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write("test: ../test/images\n")
    assert list(load_data(str(yolo))) == ["train", "validation"]
    assert "there is no test split" in caplog.text


def test_cones_and_cubes(real_data: Callable[[str], Path]) -> None:
    data = load_data(str(real_data("cones_yolo")))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 435, "validation": 124, "test": 63}
    names = class_names(data["train"])
    counts = Counter(names[label] for rows in data.values() for one in rows["objects"] for label in one["category"])
    assert counts == {"cone": 931, "cube": 521}


def test_classes_that_are_only_counted(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    (yolo / "data.yaml").rename(yolo / "set.yaml")
    (yolo / "set.yaml").write_text("train: train/images\nval: valid/images\nnc: 3\n")
    assert class_names(load_data(str(yolo))["train"]) == ["0", "1", "2"]
    assert caplog.text.count("the 3 classes have no names") == 1


def test_many_unreadable_images_are_logged_in_four_lines(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(30):
        (yolo / "train" / "images" / f"{index:02}.png").write_text("nothing")
    load_data(str(yolo))
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    first = yolo / "train" / "images" / "00.png"
    assert messages[0] == f"{first}: not a readable image (no known format). Replace the file"
    assert messages[3] == "... and 27 more like the one above"
    assert len(messages) <= 8  # and as many of images without labels


def test_a_list_of_images_whose_names_have_other_separators(yolo: Path, write_image: Callable[..., Path]) -> None:
    image = write_image(yolo / "train" / "images" / "a\u2028b.png")
    (yolo / "list.txt").write_text("train/images/a\u2028b.png\ntrain/images/a.png\n", encoding="utf-8")
    (yolo / "data.yaml").write_text("train: list.txt\nnames: [a, b]\n")
    assert load_data(str(yolo))["train"][0]["image"]["path"] == str(image)


def test_folders_and_dangling_links_among_the_files(yolo: Path) -> None:
    (yolo / "old.yaml").mkdir()
    (yolo / "gone.yaml").symlink_to(yolo / "nowhere")
    (yolo / "train" / "labels" / "b.txt").mkdir()
    (yolo / "train" / "images" / "c.png").mkdir()
    (yolo / "train" / "labels" / "d.txt").symlink_to(yolo / "nowhere")
    assert len(load_data(str(yolo))["train"]) == 2


def test_labels_in_other_folders_are_found_by_their_names(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    (yolo / "annotations").mkdir()
    for split in ("train", "valid"):
        for name in ("a", "b"):
            (yolo / split / "images" / f"{name}.png").rename(yolo / split / "images" / f"{split}-{name}.png")
        (yolo / split / "labels" / "a.txt").rename(yolo / "annotations" / f"{split}-a.txt")
    data = load_data(str(yolo))
    assert [len(objects["bbox"]) for rows in data.values() for objects in rows["objects"]] == [1, 0, 1, 0]
    assert str(yolo / "annotations") in caplog.text


def test_labels_are_beside_a_linked_folder_not_beside_its_target(yolo: Path, tmp_path: Path) -> None:
    far = tmp_path / "nas"
    (yolo / "train" / "images").rename(far)
    (yolo / "train" / "images").symlink_to(far)
    data = load_data(str(yolo))
    assert [len(objects["bbox"]) for objects in data["train"]["objects"]] == [1, 0]


def test_a_label_in_another_encoding_is_a_problem_of_its_image(yolo: Path) -> None:
    (yolo / "train" / "labels" / "b.txt").write_bytes("0 .5 .5 .1 .1 größer\n".encode("latin-1"))
    data = load_source_data(str(yolo))
    assert [(one.kind, one.split, one.row) for one in data.problems if one.refused] == [
        ("unreadable annotation", "train", 1)
    ]


@pytest.mark.parametrize("name", ["classes.txt", "obj.names"])
def test_without_a_data_yaml_the_classes_are_those_of_a_file_of_names(yolo: Path, name: str) -> None:
    (yolo / "data.yaml").unlink()
    (yolo / name).write_text("cone\ncube\n")
    categories = [{"id": number, "name": one} for number, one in enumerate(("cone", "cube"))]
    info = {"year": 2024, "version": "1.0", "contributor": "Label Studio"}
    (yolo / "notes.json").write_text(json.dumps({"categories": categories, "info": info}))
    assert class_names(load_data(str(yolo))["train"]) == ["cone", "cube"]
    data = load_data(f"yolo:{yolo}")
    assert class_names(data["train"]) == ["cone", "cube"]
    # The folders of the images are the splits.
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 2}


@pytest.mark.parametrize(
    ("names", "where"),
    [("cone\n\ncube\n", "classes.txt, line 2"), ("cone\ncone\n", "'cone' occurs twice"), ("\n", "classes.txt")],
)
def test_names_that_would_shift_the_class_numbers_are_refused(yolo: Path, names: str, where: str) -> None:
    (yolo / "data.yaml").unlink()
    (yolo / "classes.txt").write_text(names)
    with pytest.raises(InputError, match=where):
        load_data(f"yolo:{yolo}")


def test_label_files_with_the_whole_name_of_the_image(yolo: Path) -> None:
    for split in ("train", "valid"):
        (yolo / split / "labels" / "a.txt").rename(yolo / split / "labels" / "a.png.txt")
    data = load_source_data(str(yolo), unlabeled="skip")
    assert [len(rows["objects"][0]["bbox"]) for rows in data.splits.values()] == [1, 1]
    assert data.problems == ()


def test_a_label_file_of_two_images_is_a_problem_of_both(yolo: Path, write_image: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        write_image(yolo / "train" / "images" / f"{name}.jpg", seed=7)
    (yolo / "train" / "labels" / "b.txt").write_text("\n")
    data = load_source_data(f"yolo:{yolo}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [0, 0, 0, 0]
    refused = [(one.kind, one.split, one.row) for one in data.refused]
    assert refused == [("unreadable annotation", "train", row) for row in (0, 1)]
    label = yolo / "train" / "labels" / "a.txt"
    assert data.refused[0].message.startswith(
        f"{label}: is the label file of 2 images (a.jpg, a.png), so it is unknown"
    )
    (yolo / "train" / "labels" / "a.jpg.txt").write_text("")
    (yolo / "train" / "images" / "a.jpg").unlink()
    (yolo / "train" / "images" / "a.jpg").symlink_to("a.png")
    assert load_source_data(f"yolo:{yolo}").refused == []


@pytest.mark.parametrize(
    "start", ["\\\\nas\\share\\images\\", "D:images\\", "D:\\set\\", "\\\\nas\\share\\", "/mnt/x/", "https://a.b/"]
)
def test_lists_with_paths_of_windows(tmp_path: Path, write_image: Callable[..., Path], start: str) -> None:
    images = [
        write_image(tmp_path / "images" / camera / "0.jpg", seed=seed) for seed, camera in enumerate(("cam1", "cam2"))
    ]
    for seed, image in enumerate(images):
        image.with_suffix(".txt").write_text("0 .5 .5 .3 .3\n" * (1 + seed))
    separator = "\\" if "\\" in start else "/"
    (tmp_path / "train.txt").write_text("".join(f"{start}{camera}{separator}0.jpg\n" for camera in ("cam1", "cam2")))
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
    (tmp_path / "obj.names").write_text("cat\n")
    for source in ("yolo", "darknet"):
        rows = load_data(f"{source}:{tmp_path}")["train"]
        assert [row["image"]["path"] for row in rows] == list(map(str, images))
        assert [len(row["objects"]["bbox"]) for row in rows] == [1, 2]


def test_a_list_of_missing_images_does_not_use_those_of_another_split(yolo: Path) -> None:
    (yolo / "train" / "images" / "a.png").unlink()
    (yolo / "train.txt").write_text("C:\\data\\train\\images\\a.png\n")
    (yolo / "data.yaml").write_text("train: train.txt\nval: valid/images\nnames: [cone, cube]\n")
    with pytest.raises(InputError, match=r"train\.txt: none of its 1 images"):
        load_data(str(yolo))


def test_a_yaml_file_of_any_name_with_a_byte_order_mark_is_recognized(yolo: Path) -> None:
    (yolo / "data.yaml").unlink()
    text = "names: [cone, cube]\ntrain: train/images\nval: valid/images\n"
    (yolo / "set.yaml").write_text(text, encoding="utf-8-sig")
    assert class_names(load_data(str(yolo))["train"]) == ["cone", "cube"]


def test_a_split_that_lost_its_labels_is_refused(yolo: Path) -> None:
    shutil.rmtree(yolo / "valid" / "labels")
    data = load_source_data(f"yolo:{yolo}")
    assert [(one.kind, one.split, one.row) for one in data.refused] == [
        ("missing label", "validation", row) for row in (0, 1)
    ]
    assert {split: len(rows) for split, rows in load_data(f"yolo:{yolo}", unlabeled="background").items()} == {
        "train": 2,
        "validation": 2,
    }


def test_a_test_split_without_labels_is_left_out(yolo: Path) -> None:
    shutil.copytree(yolo / "valid" / "images", yolo / "test" / "images")
    with (yolo / "data.yaml").open("a") as file:
        file.write("\ntest: test/images\n")
    assert list(load_data(f"yolo:{yolo}")) == ["train", "validation"]


def test_names_without_splits_in_the_yaml_file(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("names: [cone, cube]\nnc: 2\n")
    assert {split: len(rows) for split, rows in load_data(f"yolo:{yolo}").items()} == {"train": 2, "validation": 2}


def test_images_in_a_given_folder_by_the_names_of_the_labels(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for seed, split in enumerate(("train", "val")):
        write_image(tmp_path / "pictures" / f"{split}.jpg", seed=seed)
        (tmp_path / "data/labels" / split).mkdir(parents=True)
        (tmp_path / "data/labels" / split / f"{split}.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data/data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    data = load_data(str(tmp_path / "data"), images=tmp_path / "pictures")
    assert {split: rows[0]["image"]["path"] for split, rows in data.items()} == {
        "train": str(tmp_path / "pictures/train.jpg"),
        "validation": str(tmp_path / "pictures/val.jpg"),
    }
    assert [len(rows[0]["objects"]["bbox"]) for rows in data.values()] == [1, 1]
