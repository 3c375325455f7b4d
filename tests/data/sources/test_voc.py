"""Pascal VOC in its layouts, and errors in wrong files."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.voc_files import voc_xml

from detr_ft.data.schema import class_names, detection_objects
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError
from detr_ft.workflows.doctor import doctor


@pytest.fixture
def voc(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(voc_xml(("dog", 10, 5, 12.5, 9), ("cat", 3, 3, 3, 3)))
    (tmp_path / "Annotations" / "b.xml").write_text(voc_xml())
    (tmp_path / "Annotations" / "c.xml").write_text(voc_xml(("ant", 1, 1, 40, 30)))
    return tmp_path


def write_sets(folder: Path, **sets: str) -> None:
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for name, text in sets.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text)


def test_corners_are_read_as_written_and_classes_are_sorted(voc: Path) -> None:
    data = load_data(f"voc:{voc}")
    assert list(data) == ["train"]
    assert class_names(data["train"]) == ["ant", "cat", "dog"]
    row = data["train"][0]
    assert row["image"]["path"] == str(voc / "JPEGImages" / "a.jpg")
    boxes = [[10.0, 5.0, 2.5, 4.0], [3.0, 3.0, 0.0, 0.0]]
    assert row["objects"] == detection_objects(boxes, [2, 1], difficult=[True, True], truncated=[False, True])
    assert data["train"][1]["objects"]["bbox"] == []


def test_image_sets_are_the_splits(voc: Path) -> None:
    write_sets(voc, train="a\n\n", val="b\n", trainval="a\nb\n", test="c\n", dog_train="a 1\n")
    data = load_data(str(voc))
    files = {split: [Path(image["path"]).stem for image in rows["image"]] for split, rows in data.items()}
    assert files == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    assert class_names(data["test"]) == ["ant", "cat", "dog"]


def test_trainval_alone_is_the_training_split(voc: Path) -> None:
    write_sets(voc, trainval="a\nb\n", test="c\n")
    assert {split: len(rows) for split, rows in load_data(f"voc:{voc}").items()} == {"train": 2, "test": 1}


def test_xml_beside_the_images_in_a_folder_for_each_split(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for split in ("train", "valid"):
        image = write_image(tmp_path / split / "x.jpg")
        image.with_suffix(".xml").write_text(voc_xml(("dog", 1, 1, 9, 9)))
    data = load_data(str(tmp_path))
    assert {split: rows[0]["image"]["path"] for split, rows in data.items()} == {
        "train": str(tmp_path / "train" / "x.jpg"),
        "validation": str(tmp_path / "valid" / "x.jpg"),
    }


def test_a_size_of_zero_is_measured_and_a_stated_file_name_is_followed(
    voc: Path, write_image: Callable[..., Path]
) -> None:
    write_image(voc / "JPEGImages" / "other.png", size=(20, 10), orientation=8)
    text = voc_xml(("dog", 1, 1, 9, 9), filename="C:\\data\\other.png", size="<width>0</width><height>0</height>")
    (voc / "Annotations" / "d.xml").write_text(text)
    row = load_data(f"voc:{voc}")["train"][3]
    assert (row["width"], row["height"]) == (10, 20)
    assert row["image"]["path"].endswith("other.png")


def test_the_stated_file_name_goes_before_the_name_of_the_xml_file(
    voc: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(voc / "JPEGImages" / "a.png")
    (voc / "Annotations" / "a.xml").write_text(voc_xml(filename="a.jpg"))
    (voc / "Annotations" / "b.xml").write_text(voc_xml(("dog", 1, 1, 9, 9), filename="c.jpg"))
    (voc / "Annotations" / "c.xml").write_text(voc_xml(filename="c"))
    images = load_data(f"voc:{voc}")["train"]["image"]
    assert [Path(image["path"]).name for image in images] == ["a.jpg", "c.jpg"]  # that of two files
    assert not [record for record in caplog.records if "name a missing image" in record.getMessage()]


def test_another_image_than_the_stated_one_is_logged_once(voc: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sets(voc, train="a\nb\n", val="c\n")
    for name, stated in (("a", "a.png"), ("b", "lost.jpg"), ("c", "a.bmp")):
        (voc / "Annotations" / f"{name}.xml").write_text(voc_xml(("dog", 1, 1, 9, 9), filename=stated))
    with caplog.at_level(logging.INFO):
        data = load_data(f"voc:{voc}")
    names = [Path(image["path"]).name for rows in data.values() for image in rows["image"]]
    assert names == ["a.jpg", "b.jpg", "a.jpg"]
    (message,) = (record.getMessage() for record in caplog.records if "XML files name" in record.getMessage())
    assert message.startswith(f"{voc}: 3 XML files ")
    assert f"{voc / 'Annotations' / 'a.xml'} names a.png, used is {voc / 'JPEGImages' / 'a.jpg'}" in message
    assert "Correct <filename>" in message


def test_lists_of_classes_alone_make_the_splits(voc: Path) -> None:
    write_sets(voc, dog_train="a  1\nb -1\n", cat_train="a  1\nb  0\n", dog_val="c -1\n", cat_val="c -1\n")
    data = load_data(f"voc:{voc}")
    files = {split: [Path(image["path"]).stem for image in rows["image"]] for split, rows in data.items()}
    assert files == {"train": ["a", "b"], "validation": ["c"]}


def test_image_sets_that_name_no_split_leave_all_for_training(voc: Path) -> None:
    write_sets(voc, default="a\n", dog_default="a 1\n")
    assert len(load_data(f"voc:{voc}")["train"]) == 3


def test_subfolders_blanks_parts_and_several_boxes(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for place in ("day", "night"):
        write_image(tmp_path / "JPEGImages" / place / "a.jpg")
        (tmp_path / "Annotations" / place).mkdir(parents=True)
        box = "<bndbox><xmin> 1.0 </xmin><ymin>2</ymin><xmax>9.0</xmax><ymax>\n12\n</ymax></bndbox>"
        text = f"""<annotation><folder>{place}</folder><filename> a.jpg </filename>
            <size><width>40.0</width><height>30</height><depth>3</depth></size>
            <object><name> person </name>{box}
              <part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>
              {box.replace(" 1.0 ", "5")}</object></annotation>"""
        (tmp_path / "Annotations" / place / "a.xml").write_text(text)
    write_sets(tmp_path, train="day/a\n", val="  night/a \n")
    data = load_data(str(tmp_path))
    assert data["validation"][0]["image"]["path"] == str(tmp_path / "JPEGImages" / "night" / "a.jpg")
    assert (data["train"][0]["width"], data["train"][0]["height"]) == (40, 30)
    assert data["train"][0]["objects"]["bbox"] == [[1, 2, 8, 10], [5, 2, 4, 10]]
    assert class_names(data["train"]) == ["person"]


def test_another_tools_xml_is_an_error(voc: Path) -> None:
    (voc / "Annotations" / "b.xml").write_text("<annotations><version>1.1</version></annotations>")
    (problem,) = (one for one in load_source_data(f"voc:{voc}").problems if "b.xml" in one.message)
    assert problem.kind == "lost annotation"
    assert "must be <annotation>, got <annotations>" in problem.message


def test_problems_are_reported_together(voc: Path) -> None:
    write_sets(voc, train="a\nnowhere\nb\nc\n")
    (voc / "Annotations" / "a.xml").write_text(voc_xml(("dog", "ten", 5, 12, 9), ("", 1, 1, 2, 2)))
    (voc / "Annotations" / "b.xml").write_text("<annotation>")
    problems = load_source_data(f"voc:{voc}").problems
    expected = [
        ("train.txt, line 2: nowhere has no XML file", None),
        ("a.xml: object 0: must have a bndbox", 0),
        ("a.xml: object 1: must have a name", 0),
        ("b.xml: not valid XML", 1),
    ]
    found = [(part, one.row) for part, row in expected for one in problems if part in one.message]
    assert found == expected
    assert len(problems) == len(expected)


def test_entities_are_refused_before_they_expand(voc: Path) -> None:
    grow = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    text = f'<!DOCTYPE x [<!ENTITY e0 "ha">{grow}]><annotation><filename>&e9;</filename></annotation>'
    (voc / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(InputError, match=r"a\.xml: .*DOCTYPE"):
        load_data(f"voc:{voc}")


def test_blood_cells(real_data: Callable[[str], Path]) -> None:
    folder = real_data("bccd_voc")
    start = time.process_time()
    data = load_data(str(folder))
    assert time.process_time() - start < 2
    assert {split: len(rows) for split, rows in data.items()} == {"train": 205, "validation": 87, "test": 72}
    names = class_names(data["train"])
    objects = [one for rows in data.values() for one in rows["objects"]]
    counts = Counter(names[label] for one in objects for label in one["category"])
    assert counts == {"RBC": 4155, "WBC": 372, "Platelets": 361}
    assert sum(area == 0 for one in objects for area in one["area"]) == 2
    assert sum(sum(one["truncated"]) for one in objects) == 1131
    assert sum(sum(one["difficult"]) for one in objects) == 0


def test_flags_in_words_and_lists_of_endless_names(voc: Path) -> None:
    text = voc_xml(("dog", 1, 1, 9, 9)).replace("<difficult>1<", "<difficult>{}<")
    for stated, expected in (("False", False), ("Unspecified", False), ("true", True)):
        (voc / "Annotations" / "b.xml").write_text(text.format(stated))
        assert load_data(f"voc:{voc}")["train"]["objects"][1]["difficult"] == [expected]
    (voc / "Annotations" / "b.xml").write_text(text.format("somewhat"))
    with pytest.raises(InputError, match=r"object 0: difficult must be yes .* got 'somewhat'"):
        load_data(f"voc:{voc}")
    write_sets(voc, train="n" * 4000 + "\n")
    with pytest.raises(InputError, match="no XML files"):
        load_data(f"voc:{voc}")


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ("<bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>9.25</xmax><ymax>8</ymax></bndbox>", [1.5, 2, 7.75, 6]),
        (
            "<robndbox><cx>20</cx><cy>15</cy><w>10</w><h>4</h><angle>1.5707963267948966</angle></robndbox>",
            [18, 10, 4, 10],
        ),
        ("<polygon><x1>3</x1><y1>4</y1><x2>9</x2><y2>5</y2><x3>5</x3><y3>12</y3></polygon>", [3, 4, 6, 8]),
        (
            "<polygon><pt><x>3</x><y>4</y></pt><pt><x>9</x><y>5</y></pt><pt><x>5</x><y>12</y></pt></polygon>",
            [3, 4, 6, 8],
        ),
    ],
)
def test_every_shape_with_an_area_gives_the_box_around_it(voc: Path, shape: str, box: list[float]) -> None:
    part = "<part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>"
    text = f"<annotation><filename>a.jpg</filename><object><name>dog</name>{part}{shape}</object></annotation>"
    (voc / "Annotations" / "a.xml").write_text(text)
    rows = load_data(f"voc:{voc}")["train"]
    assert rows[0]["objects"]["bbox"] == [pytest.approx(box)]


@pytest.mark.parametrize("folder", ["annots", "labels/xml", "Annotations"])
def test_folders_of_any_name_are_recognized_also_from_inside(
    tmp_path: Path, write_image: Callable[..., Path], folder: str
) -> None:
    for seed, name in enumerate("ab"):
        write_image(tmp_path / "pictures" / f"{name}.jpg", seed=seed)
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / f"{name}.xml").write_text(voc_xml(("dog", 1, 1, 9, 9), filename=f"{name}.jpg"))
    inside = [tmp_path / folder] if "/" not in folder else []
    for spec in (tmp_path, *inside):
        rows = load_data(str(spec))["train"]
        assert [Path(row["image"]["path"]).parent.name for row in rows] == ["pictures"] * 2


@pytest.mark.parametrize("encoding", ["gb2312", "shift_jis", "utf-16", "iso-8859-1"])
def test_xml_is_read_in_the_encoding_that_it_declares(voc: Path, encoding: str) -> None:
    name = "Käse" if encoding == "iso-8859-1" else "犬"
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + voc_xml((name, 1, 1, 9, 9))
    (voc / "Annotations" / "b.xml").write_bytes(text.encode(encoding))
    assert name in class_names(load_data(f"voc:{voc}")["train"])


def test_lists_of_several_years_are_the_splits(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / year / "Annotations").mkdir(parents=True)
        for seed, name in enumerate("abc"):
            write_image(tmp_path / year / "JPEGImages" / f"{name}.jpg", seed=seed + len(year) * int(year[-1]))
            text = voc_xml(("dog", 1, 1, 9, 9), filename=f"{name}.jpg")
            (tmp_path / year / "Annotations" / f"{name}.xml").write_text(text)
        write_sets(tmp_path / year, train="a\n", val="b\n", **({"test": "c\n"} if year == "VOC2007" else {}))
    data = load_source_data(str(tmp_path))
    files = {
        split: [str(Path(one["path"]).relative_to(tmp_path)) for one in rows["image"]]
        for split, rows in data.splits.items()
    }
    assert files == {
        "train": ["VOC2007/JPEGImages/a.jpg", "VOC2012/JPEGImages/a.jpg"],
        "validation": ["VOC2007/JPEGImages/b.jpg", "VOC2012/JPEGImages/b.jpg"],
        "test": ["VOC2007/JPEGImages/c.jpg"],
    }
    assert [(one.kind, one.count) for one in data.problems] == [("no split", 1)]


def test_xml_files_in_no_list_are_counted_and_their_images_are_no_background(
    voc: Path, write_image: Callable[..., Path]
) -> None:
    write_sets(voc, train="c\n")
    unlabeled = write_image(voc / "JPEGImages" / "d.jpg", seed=9)
    data = load_source_data(f"voc:{voc}", unlabeled="background")
    assert [(one.kind, one.count) for one in data.problems] == [("no split", 2), ("unlabeled", 1)]
    assert data.problems[0].message == (
        f"{voc / 'Annotations' / 'a.xml'}: 2 XML files are in no list of ImageSets/Main and are left out, this is the "
        "first. Add their names to a list"
    )
    assert [row["image"]["path"] for row in data.splits["train"]] == [
        str(voc / "JPEGImages" / "c.jpg"),
        str(unlabeled),
    ]
    assert data.annotated == {voc / "JPEGImages" / "a.jpg", voc / "JPEGImages" / "b.jpg"}
    files = [one.image for one in doctor(f"voc:{voc}").findings if one.kind == "no record"]
    assert files == [str(unlabeled)]


@pytest.mark.parametrize(
    ("objects", "boxes", "problem"),
    [
        ("<Object><name>dog</name>{}</Object>", 1, ""),
        ("<objects><object><name>dog</name>{0}</object><object><name>dog</name>{0}</object></objects>", 0, "<objects> has boxes or polygons (2)"),
        ("<item><name>dog</name>{}</item>", 0, "<item> has boxes or polygons (1) and is not read. Put each"),
        ("{}", 0, "<bndbox> has"),
        ("<objects/><source><database>x</database></source><owner><name>me</name></owner><segmented>0</segmented>", 0, ""),
    ],
)  # fmt: skip
def test_elements_with_boxes_that_are_no_objects_are_a_problem_of_their_image(
    voc: Path, objects: str, boxes: int, problem: str
) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    (voc / "Annotations" / "b.xml").write_text(
        f"<annotation><filename>b.jpg</filename>{objects.format(box)}</annotation>"
    )
    data = load_source_data(f"voc:{voc}")
    assert data.splits["train"][1]["objects"]["bbox"] == [[1, 2, 8, 6]] * boxes
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 1)] * bool(problem)
    assert all(problem in one.message for one in data.problems)


def test_lists_with_folders_and_lists_of_images_and_xml_files(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for seed, name in enumerate("abc"):
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg", seed=seed)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(voc_xml(("dog", 1, 1, 9, 9), filename=f"{name}.jpg"))
    expected = {"train": ["a.jpg"], "validation": ["b.jpg"], "test": ["c.jpg"]}
    for lists in (
        {
            "ImageSets/Main/train.txt": "JPEGImages/a.jpg",
            "ImageSets/Main/val.txt": "C:\\x\\b.jpg",
            "ImageSets/Main/test.txt": "c",
        },
        {
            f"{split}.txt": f"JPEGImages/{name}.jpg Annotations/{name}.xml"
            for split, name in zip(("train", "val", "test"), "abc", strict=True)
        },
    ):
        shutil.rmtree(tmp_path / "ImageSets", ignore_errors=True)
        for name, text in lists.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        data = load_data(f"voc:{tmp_path}")
        assert {split: [Path(row["image"]["path"]).name for row in rows] for split, rows in data.items()} == expected
