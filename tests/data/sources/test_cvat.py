"""CVAT for images 1.1 as the tool exports it, and errors in other files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

_META = """<version>1.1</version><meta><task><id>4</id><name>t</name><size>2</size><mode>annotation</mode>
<labels><label><name>car</name><color>#c06060</color><type>any</type><attributes></attributes></label></labels>
</task><dumped>2024-05-01 10:00:00.000000+00:00</dumped></meta>"""


def box(label: str, *corners: float, more: str = "") -> str:
    x0, y0, x1, y1 = corners
    return (
        f'<box label="{label}" source="manual" occluded="0" xtl="{x0:.2f}" ytl="{y0:.2f}" xbr="{x1:.2f}" '
        f'ybr="{y1:.2f}" z_order="0"{more}><attribute name="colour">red</attribute></box>'
    )


def image(number: int, name: str, *shapes: str, subset: str = "") -> str:
    inside = f' subset="{subset}"' if subset else ""
    return f'<image id="{number}" name="{name}"{inside} width="40" height="30">{"".join(shapes)}</image>'


def write(folder: Path, *parts: str, name: str = "annotations.xml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{_META}{"".join(parts)}</annotations>'
    (folder / name).write_text(text)
    return folder / name


def test_boxes_and_polygons_are_read_and_others_counted(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "images" / "cam 1" / "a.png")
    write_image(tmp_path / "images" / "b.png")
    polygon = '<polygon label="bus" occluded="1" source="manual" points="1.00,2.00;9.50,2.00;4.00,12.00" z_order="0"/>'
    others = '<points label="car" points="1,1"/><points label="car" points="2,2"/><tag label="night"/>'
    turned = box("car", 10, 10, 14, 12, more=' rotation="90.00"')
    write(tmp_path, image(0, "cam 1/a.png", box("car", 1, 2, 9, 12), polygon, turned, others), image(1, "b.png"))
    data = load_data(str(tmp_path))
    assert list(data) == ["train"]
    assert class_names(data["train"]) == ["bus", "car"]
    row = data["train"][0]
    assert row["image"]["path"] == str(tmp_path / "images" / "cam 1" / "a.png")
    assert (row["width"], row["height"]) == (40, 30)
    assert row["objects"]["bbox"] == [[1, 2, 8, 10], [1, 2, 8.5, 10], pytest.approx([11, 9, 2, 4])]
    assert row["objects"]["category"] == [1, 0, 1]
    assert data["train"][1]["objects"]["bbox"] == []
    assert [
        record.getMessage().partition("shape ")[2] for record in caplog.records if record.levelname == "WARNING"
    ] == [
        "3: a points has no area",
        "4: a points has no area",
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('<ellipse label="car" cx="20" cy="15" rx="6" ry="3"/>', [14, 12, 12, 6]),
        ('<ellipse label="car" cx="20" cy="15" rx="6" ry="3" rotation="90"/>', [17, 9, 6, 12]),
        ('<mask label="car" rle="1, 2, 3, 1, 1" left="5" top="6" width="4" height="2"/>', [6, 6, 2, 2]),
        (
            '<cuboid label="car" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="8" ytr1="2" xbr1="8" ybr1="9" '
            'xtl2="4" ytl2="1" xbl2="4" ybl2="7" xtr2="12" ytr2="1" xbr2="12" ybr2="7"/>',
            [1, 1, 11, 8],
        ),
        (
            '<skeleton label="car"><points label="nose" points="4,5" outside="0"/><points label="tail" points="9,11"/>'
            '<points label="gone" points="39,29" outside="1"/></skeleton>',
            [4, 5, 5, 6],
        ),
    ],
)
def test_every_shape_with_an_area_gives_the_box_around_it(
    tmp_path: Path, write_image: Callable[..., Path], shape: str, expected: list[float]
) -> None:
    write_image(tmp_path / "a.png")
    data = load_data(f"cvat:{write(tmp_path, image(0, 'a.png', shape))}")
    assert data["train"][0]["objects"]["bbox"] == [pytest.approx(expected)]


@pytest.mark.parametrize(
    "shape",
    [
        '<mask label="car" rle="8" left="5" top="6" width="4" height="2"/>',  # no pixel
        '<mask label="car" rle="1,99" left="5" top="6" width="4" height="2"/>',
        '<ellipse label="car" cx="20" cy="15" rx="6"/>',
        '<cuboid label="car" xtl1="1"/>',
        '<skeleton label="car"/>',
        '<blob label="car"/>',
        '<points label="car" points="1,1"/>',  # alone in its image
    ],
)
def test_a_shape_that_cannot_be_read_is_a_problem_of_its_image(
    tmp_path: Path, write_image: Callable[..., Path], shape: str
) -> None:
    for seed, name in enumerate(("a.png", "b.png")):
        write_image(tmp_path / name, seed=seed)
    file = write(tmp_path, image(0, "a.png", shape), image(1, "b.png", box("car", 1, 2, 9, 12)))
    data = load_source_data(f"cvat:{file}")
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 0)]
    assert "shape 0" in data.problems[0].message


def test_subsets_are_splits_with_folders_of_their_own(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for seed, subset in enumerate(("Train", "Validation", "extra")):
        write_image(tmp_path / "images" / subset / "a.png", seed=seed)
    parts = [
        image(i, "a.png", box("car", 1, 2, 9, 12), subset=one) for i, one in enumerate(("Train", "Validation", "extra"))
    ]
    data = load_data(str(write(tmp_path, *parts)))
    paths = {split: rows[0]["image"]["path"] for split, rows in data.items()}
    assert paths == {
        "train": str(tmp_path / "images" / "Train" / "a.png"),
        "validation": str(tmp_path / "images" / "Validation" / "a.png"),
    }
    assert "1 images of the subset 'extra' are left out" in caplog.text


def test_problems_are_reported_together(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    shapes = [
        '<box label="car" xtl="1" ytl="2" xbr="x" ybr="3"/>',
        box("", 1, 2, 3, 4),
        '<polygon label="c" points="1,2"/>',
    ]
    file = write(tmp_path, image(0, "a.png", *shapes), image(1, ""))
    with pytest.raises(InputError) as caught:
        load_data(f"cvat:{file}")
    assert sorted(caught.value.problems[1:]) == [
        f"{file}: image 0 (a.png), shape 0: the box must have the numbers xtl, ytl, xbr, ybr, and a rotation in degrees or none",
        f"{file}: image 0 (a.png), shape 1: the box must have a label",
        f"{file}: image 0 (a.png), shape 2: the polygon must have points, as x,y;x,y;x,y",
        f"{file}: image 1: must have a name",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations>", "not valid XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations>&a;</annotations>', "DOCTYPE"),
        ("<annotation><object/></annotation>", "the Pascal VOC file of one image"),
        ("<root/>", "not a CVAT file"),
        ("<annotations><track id='0' label='car'/></annotations>", "Export the task as 'CVAT for images 1.1'"),
        ("<annotations/>", "no images"),
        ("<annotations><image id='0' name='a.png'/></annotations>", "none of its 1 images is below"),
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_data(str(tmp_path / "a.xml"))


def test_image_ids_of_the_file_are_used_if_they_are_unique(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    write(tmp_path, image(17, "b.png", box("car", 1, 2, 9, 12)), image(4, "a.png"))
    for _ in range(2):
        assert load_data(str(tmp_path))["train"]["image_id"][:] == [17, 4]
    write(tmp_path, image(4, "b.png", box("car", 1, 2, 9, 12)), image(4, "a.png"))
    assert load_data(str(tmp_path))["train"]["image_id"][:] == [0, 1]


def test_images_of_other_subsets_are_no_background(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    names = ("a.png", "b.png", "c.png")
    paths = [write_image(tmp_path / "images" / name, seed=seed) for seed, name in enumerate(names)]
    other = image(1, "b.png", box("car", 1, 2, 9, 12), '<tag label="night"/>', subset="night")
    write(tmp_path, image(0, "a.png", box("car", 1, 2, 9, 12)), other)
    data = load_source_data(f"cvat:{tmp_path}", unlabeled="background")
    assert [(one.kind, one.count) for one in data.problems] == [("no split", 1), ("unlabeled", 1)]
    assert [row["image"]["path"] for row in data.splits["train"]] == [str(paths[0]), str(paths[2])]
    assert data.annotated == {paths[1]}


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ("", [[1, 2, 8, 2]]),
        (' rotation="90"', [pytest.approx([4, -1, 2, 8])]),
        (' rotation="90,0"', []),
        (' rotation="left"', []),
    ],
)
@pytest.mark.parametrize("kind", ["box", "ellipse"])
def test_a_rotation_that_cant_be_read_is_a_problem(
    tmp_path: Path, write_image: Callable[..., Path], kind: str, rotation: str, expected: list[list[float]]
) -> None:
    write_image(tmp_path / "a.png")
    ellipse = f'<ellipse label="car" cx="5" cy="3" rx="4" ry="1"{rotation}/>'
    shape = box("car", 1, 2, 9, 4, more=rotation) if kind == "box" else ellipse
    write(tmp_path, image(0, "a.png", box("car", 0, 0, 9, 9), shape))
    data = load_source_data(f"cvat:{tmp_path}")
    assert data.splits["train"][0]["objects"]["bbox"] == [[0, 0, 9, 9], *expected]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 0)] * (not expected)
    assert all(f"shape 1: the {kind} must have" in one.message for one in data.problems)


@pytest.mark.parametrize(
    "names", [("train.xml", "val.xml"), ("annotations.xml", "task_val.xml"), ("train/annotations.xml", "valid/a.xml")]
)
def test_several_files_are_the_splits_in_their_names(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture, names: tuple[str, str]
) -> None:
    for seed, (name, images) in enumerate(zip(names, (("a", "b"), ("c",)), strict=True)):
        file = tmp_path / name
        write(file.parent, *(image(7, f"{one}.png", box("car", 1, 2, 9, 12)) for one in images), name=file.name)
        for one in images:
            write_image(file.parent / f"{one}.png", seed=seed)
    with caplog.at_level(logging.INFO):
        data = load_data(str(tmp_path))
    assert {split: [Path(row["image"]["path"]).name for row in rows] for split, rows in data.items()} == {
        "train": ["a.png", "b.png"],
        "validation": ["c.png"],
    }
    assert data["train"]["image_id"][:] == [0, 1]
    assert "split by the names of the files and folders: train 2, validation 1" in caplog.text


def test_subsets_go_before_the_names_of_files(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for seed, name in enumerate("abc"):
        write_image(tmp_path / f"{name}.png", seed=seed)
    write(tmp_path, image(0, "a.png", box("car", 1, 2, 9, 12)), name="1.xml")
    inside = [
        image(i, f"{name}.png", box("car", 1, 2, 9, 12), subset=one)
        for i, (name, one) in enumerate([("b", ""), ("c", "test")])
    ]
    write(tmp_path, *inside, name="val.xml")
    counts = {split: len(rows) for split, rows in load_data(f"cvat:{tmp_path}").items()}
    assert counts == {"train": 1, "validation": 1, "test": 1}


def test_several_files_of_no_split_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("1.xml", "2.xml", "val.xml"):
        write(tmp_path, image(0, "a.png", box("car", 1, 2, 9, 12)), name=name)
    with pytest.raises(InputError, match=r"split train: .*1\.xml, .*2\.xml\. Give one of them, as in cvat:.*1\.xml"):
        load_data(str(tmp_path))


def test_the_only_file_of_a_folder_is_train(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    write(tmp_path, image(0, "a.png", box("car", 1, 2, 9, 12)), name="val.xml")
    assert list(load_data(str(tmp_path))) == ["train"]
