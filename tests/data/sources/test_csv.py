"""Tables of boxes, as TensorFlow, Roboflow, Open Images and people write them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detr_ft.data.doctor import examine
from detr_ft.data.images import name_in_other_case
from detr_ft.data.schema import class_names, detection_objects
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]


@pytest.fixture
def write_table(write_image: Write) -> Write:
    """Writes lines as a CSV file, and images of 40x30 pixels beside it."""

    def write(file: Path, *lines: str, images: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Path:
        for index, name in enumerate(images):
            write_image(file.parent / name, seed=index)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    return write


def test_roboflow_s_export(tmp_path: Path, write_table: Write) -> None:
    header = "filename,width,height,class,xmin,ymin,xmax,ymax"
    write_table(
        tmp_path / "train" / "_annotations.csv",
        header,
        "a.jpg,400,300,helmet,111,144,134,174",
        "a.jpg,400,300,head,178,84,230,143",
        "b.jpg,200,100,helmet,20,10,200,100",
    )
    write_table(tmp_path / "valid" / "_annotations.csv", header, "b.jpg,200,100,head,0,0,50,50")
    for spec in (f"csv:{tmp_path}", str(tmp_path)):
        data = load_data(spec)
        assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 1}
        assert class_names(data["validation"]) == ["head", "helmet"]
        assert data["train"][0] == {
            "image": {"path": str(tmp_path / "train" / "a.jpg"), "bytes": None},
            "image_id": 0,
            "width": 400,
            "height": 300,
            "objects": detection_objects([[111.0, 144.0, 23.0, 30.0], [178.0, 84.0, 52.0, 59.0]], [1, 0]),
        }


def test_open_images(tmp_path: Path, write_table: Write, write_image: Write) -> None:
    write_image(tmp_path / "images" / "validation" / "0001eeaf4aed83f9.jpg")
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/0cmf2,Airplane\n/m/02xwb,Fruit, ripe\n")
    write_table(
        tmp_path / "annotations" / "validation-annotations-bbox.csv",
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside",
        "0001eeaf4aed83f9,xclick,/m/0cmf2,1,0.25,0.75,0.1,0.5,0,1,0,0,0",
        "0001eeaf4aed83f9,xclick,/m/02xwb,1,0,1,0,1,0,0,1,0,0",
        images=(),
    )
    write_table(
        tmp_path / "annotations" / "validation-annotations-human-imagelabels.csv",
        "ImageID,Source,LabelName,Confidence",
        images=(),
    )
    rows = load_data(str(tmp_path))["validation"]
    assert class_names(rows) == ["Airplane", "Fruit"]
    assert rows[0]["image"]["path"] == str(tmp_path / "images" / "validation" / "0001eeaf4aed83f9.jpg")
    objects = rows[0]["objects"]
    assert objects["bbox"] == [pytest.approx([10, 3, 20, 12]), pytest.approx([0, 0, 40, 30])]
    assert (objects["iscrowd"], objects["truncated"]) == ([False, True], [True, False])


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image,label,x_min,y_min,x_max,y_max", "a.jpg,cat,10,3,30,15"),
        ("path;category;X1;Y1;X2;Y2", "a.jpg;cat;10,0;3,0;30,0;15,0"),
        ("file\tname\tleft\ttop\tright\tbottom", "a.jpg\tcat\t10\t3\t30\t15"),
        ("image_path,class_name,x,y,width,height", "sub/../a.jpg,cat,10,3,20,12"),
        ("ImageID,label,bbox_x,bbox_y,bbox_width,bbox_height,width,height", "a,cat,10,3,20,12,40,30"),
        ("filename,class,cx,cy,w,h", "a.jpg,cat,20,9,20,12"),
        ('"filename","class","xmin","ymin","width","height"', '"C:\\photos\\a.jpg","cat","10","3","20","12"'),
        ("\ufefffilename,class,xmin,ymin,xmax,ymax", "/content/drive/a.jpg,cat,10,3,30,15"),
    ],
)
def test_the_spellings_of_columns(tmp_path: Path, write_table: Write, header: str, line: str) -> None:
    write_table(tmp_path / "labels.csv", header, line)
    row = load_data(f"csv:{tmp_path / 'labels.csv'}")["train"][0]
    assert row["objects"]["bbox"] == [[10, 3, 20, 12]]
    assert (row["width"], row["height"], Path(row["image"]["path"]).name) == (40, 30, "a.jpg")


def test_a_line_without_a_box_is_an_image_without_objects(tmp_path: Path, write_table: Write) -> None:
    file = write_table(tmp_path / "a.csv", "image,label,xmin,ymin,xmax,ymax", "a.jpg,cat,1,1,5,5", "", "b.jpg,,,,,")
    rows = load_data(str(file))["train"]
    assert [len(objects["bbox"]) for objects in rows["objects"]] == [1, 0]


def test_splits_by_file_names_and_images_by_folders(tmp_path: Path, write_table: Write, write_image: Write) -> None:
    for split, folder in (("train", "images/train"), ("val", "val")):
        write_image(tmp_path / folder / "a.jpg", size=(60, 50))
        write_table(tmp_path / f"{split}.csv", "image,label,xmin,ymin,xmax,ymax", "a.jpg,cat,1,1,5,5", images=())
    data = load_data(str(tmp_path))
    assert data["train"][0]["image"]["path"] == str(tmp_path / "images" / "train" / "a.jpg")
    assert data["validation"][0]["image"]["path"] == str(tmp_path / "val" / "a.jpg")
    assert data["train"][0]["width"] == 60


def test_fractions_and_centers_are_recognized_or_given(
    tmp_path: Path, write_table: Write, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.1, 0.4, (60, 2))
    centres = sides / 2 + rng.uniform(0, 1, (60, 2)) * (1 - sides)
    lines = [f"a.jpg,cat,{x:.4f},{y:.4f},{w:.4f},{h:.4f}" for x, y, w, h in np.concatenate([centres, sides], axis=1)]
    file = write_table(tmp_path / "a.csv", "image,label,x,y,w,h", *lines)
    with caplog.at_level(logging.INFO):
        read = load_data(str(file))["train"][0]["objects"]["bbox"]
    assert "boxes read as cxcywh in fractions (60 of 60 fit their image" in caplog.text
    expected = np.concatenate([centres - sides / 2, sides], axis=1) * [40, 30, 40, 30]
    np.testing.assert_allclose(read, expected, atol=0.01)
    boxes = load_data(str(file), box_format="xywh-fractions")["train"][0]["objects"]["bbox"]
    np.testing.assert_allclose(boxes[0][:2], centres[0] * [40, 30], atol=0.01)


def test_metadata_csv_of_an_image_folder(tmp_path: Path, write_table: Write) -> None:
    write_table(tmp_path / "train" / "metadata.csv", "file_name,label,xmin,ymin,xmax,ymax", "a.jpg,cat,1,1,5,5")
    for spec in (f"folder:{tmp_path}", str(tmp_path)):
        assert load_data(spec)["train"][0]["objects"]["bbox"] == [[1, 1, 4, 4]]


def test_problems_are_reported_together_with_their_lines(tmp_path: Path, write_table: Write) -> None:
    file = write_table(
        tmp_path / "a.csv",
        "image,label,xmin,ymin,xmax,ymax",
        "a.jpg,cat,1,1,5,5",
        "a.jpg,cat,1,1,5",
        "a.jpg,cat,1,1,five,5",
        "a.jpg,,1,1,5,5",
        ",cat,1,1,5,5",
        "a.jpg,cat,1,1,5,",
        '"b.jpg","two\nlines",1,1,5,5',
        "a.jpg,cat,1,1,5,5,7",
    )
    with pytest.raises(InputError) as caught:
        load_data(str(file))
    assert [problem.removeprefix(f"{file}, ") for problem in sorted(caught.value.problems[:-1], key=len)] == sorted(
        [
            "line 3: must have 6 cells, got 5",
            "line 4: a box must have four numbers, or none, got 1, 1, five, 5",
            "line 5: the box must have a class",
            "line 6: must name an image",
            "line 7: a box must have four numbers, or none, got 1, 1, 5, nothing",
            "line 10: must have 6 cells, got 7",
        ],
        key=len,
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["a.jpg,1,1,5,5,cat"],
            r"a\.csv: .*the image's file \(.*\); the class \(.*\); the box \(.*\); it has a.jpg, 1, 1, 5, 5, cat",
        ),
        (["filename,class,xmin,ymin,xmax"], "name the box .*; it has filename, class, xmin, ymin, xmax"),
        (["filename,class,class,xmin,ymin,xmax,ymax"], "the column 'class' .*Rename or remove"),
        (["filename,class,xmin,ymin,xmax,ymax"], "no images"),
        (["filename,class,xmin,ymin,xmax,ymax", "gone.jpg,cat,1,1,5,5"], "in none of these folders"),
        ([""], "name the image's file"),
    ],
)
def test_a_file_that_is_no_table_of_boxes(tmp_path: Path, write_table: Write, lines: list[str], message: str) -> None:
    write_table(tmp_path / "a.csv", *lines)
    for spec in (f"csv:{tmp_path / 'a.csv'}", f"csv:{tmp_path}"):
        with pytest.raises(InputError, match=message):
            load_data(spec)


def test_images_in_subfolders_are_located_but_not_those_of_another_split(
    tmp_path: Path, write_table: Write, write_image: Write
) -> None:
    for place in ("pictures/day/a.jpg", "pictures/night/b.jpg", "val/c.jpg", "pictures/val/c.jpg"):
        write_image(tmp_path / place)
    header, lines = "image,label,xmin,ymin,xmax,ymax", [f"{name}.jpg,cat,1,1,5,5" for name in "abc"]
    file = write_table(tmp_path / "annotations" / "train.csv", header, *lines, images=())
    paths = [Path(image["path"]) for image in load_data(f"csv:{file}")["train"]["image"]]
    assert paths[:2] == [tmp_path / "pictures/day/a.jpg", tmp_path / "pictures/night/b.jpg"]
    assert not paths[2].exists()
    write_image(tmp_path / "copies" / "a.jpg")
    with pytest.raises(
        InputError, match=r"train\.csv, line 2: the image a\.jpg is ambiguous: .*copies/a\.jpg.*day/a\.jpg"
    ):
        load_data(f"csv:{file}")


def test_missing_images_are_reported_once(tmp_path: Path, write_table: Write) -> None:
    header = "image,label,xmin,ymin,xmax,ymax,split"
    lines = [f"{split.upper()}.jpg,cat,1,1,5,5,{split}" for split in ("train", "val", "test")]
    file = write_table(tmp_path / "a.csv", header, *lines, images=("train.jpg", "Train.jpg"))
    with pytest.raises(InputError) as caught:
        load_data(f"csv:{file}")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}: its images are in none of these folders, nor below them: {tmp_path}, ")
    assert "; for example TRAIN.jpg. Did you mean " in problem
    assert problem.lower().endswith("train.jpg?")


def test_a_name_that_differs_in_case_from_one_file_is_that_file(
    tmp_path: Path, write_table: Write, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"IMG_{index}.JPG,cat,1,1,5,{5 + index}" for index in range(3)]
    images = [f"images/img_{index}.jpg" for index in range(3)]
    file = write_table(tmp_path / "a.csv", "image,label,xmin,ymin,xmax,ymax", *lines, images=images)
    rows = load_data(f"csv:{file}")["train"]
    assert [row["image"]["path"] for row in rows] == [str(tmp_path / image) for image in images]
    assert [row["objects"]["bbox"][0][3] for row in rows] == [4, 5, 6]


def test_a_name_that_differs_in_case_from_several_files_is_reported_with_a_similar_one(
    tmp_path: Path, write_table: Write, write_image: Write, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b.jpg", "b.Jpg"):
        write_image(tmp_path / "images" / name)
    header, lines = "image,label,xmin,ymin,xmax,ymax", ["a.jpg,cat,1,1,5,5", "B.JPG,cat,1,1,5,5", "c.jpg,cat,1,1,5,5"]
    data = load_data(f"csv:{write_table(tmp_path / 'a.csv', header, *lines, images=('a.jpg',))}")
    beside = name_in_other_case(tmp_path / "images/B.JPG")
    assert beside in ("b.jpg", "b.Jpg")
    similar = f"{tmp_path / 'images' / 'B.JPG'}: the image file doesn't exist. Did you mean {beside}?"
    lost = f"{tmp_path / 'c.jpg'}: the image file doesn't exist"
    assert [message for message in caplog.messages if "doesn't exist" in message] == [similar, lost]
    assert [one.message for one in examine(data).findings if one.kind == "missing file"] == [similar, lost]


def test_too_many_tables(tmp_path: Path, write_table: Write) -> None:
    for name in ("train_a.csv", "train_b.csv"):
        write_table(tmp_path / name, "filename,class,xmin,ymin,xmax,ymax", "a.jpg,cat,1,1,5,5")
    with pytest.raises(InputError, match=r"train_a\.csv, .*train_b\.csv.*as in csv:.*train_a\.csv"):
        load_data(f"csv:{tmp_path}")


@pytest.mark.parametrize(
    "names",
    [("labels.csv", "val.csv"), ("train/_annotations.csv", "val.csv"), ("annotations/train.csv", "valid/x.csv")],
)
def test_every_table_of_a_folder_is_read(tmp_path: Path, write_table: Write, names: tuple[str, str]) -> None:
    header = "filename,class,xmin,ymin,xmax,ymax"
    for name, image in zip(names, ("a.jpg", "b.jpg"), strict=True):
        write_table(tmp_path / name, header, f"{image},cat,1,1,5,5", images=(image,))
    data = load_data(str(tmp_path))
    assert {split: [Path(row["image"]["path"]).name for row in rows] for split, rows in data.items()} == {
        "train": ["a.jpg"],
        "validation": ["b.jpg"],
    }


def test_a_table_without_a_split_beside_that_of_train_is_refused(tmp_path: Path, write_table: Write) -> None:
    for name in ("train.csv", "val.csv", "extra.csv"):
        write_table(tmp_path / name, "filename,class,xmin,ymin,xmax,ymax", "a.jpg,cat,1,1,5,5")
    with pytest.raises(InputError, match=r"split train: .*extra\.csv, .*train\.csv\. Give one of them"):
        load_data(str(tmp_path))


def test_a_format_that_the_columns_contradict(tmp_path: Path, write_table: Write) -> None:
    file = write_table(tmp_path / "a.csv", "filename,class,xmin,ymin,xmax,ymax", "a.jpg,cat,1,1,5,5")
    with pytest.raises(InputError, match=r"box_format xywh .*must be xyxy"):
        load_data(str(file), box_format="xywh")


@pytest.mark.parametrize(
    ("cells", "box_format"),
    [
        (('"[10, 3, 20.0, 12]"', '"[0,0,40,30]"'), "xywh"),
        (("10 3 20 12", "0 0 40 30"), "xywh"),
        (('"(10, 3, 30, 15)"', '"(0, 0, 40, 30)"'), "xyxy"),
        (('"[0.25,0.1,0.75,0.5]"', '"[0, 0, 1, 1]"'), "xyxy-fractions"),
    ],
)
def test_a_box_in_one_column(tmp_path: Path, write_table: Write, cells: tuple[str, str], box_format: str) -> None:
    lines = [f"a.jpg,{cells[0]},cat", f"a.jpg,{cells[1]},cat", "b.jpg,[],", "b.jpg,,"]
    file = write_table(tmp_path / "a.csv", "image_id,bbox,label", *lines)
    rows = load_data(str(file), box_format=box_format)["train"]
    assert rows[0]["objects"]["bbox"] == [pytest.approx([10, 3, 20, 12]), pytest.approx([0, 0, 40, 30])]
    assert rows[1]["objects"]["bbox"] == []


def test_a_box_in_one_column_that_is_none(tmp_path: Path, write_table: Write) -> None:
    lines = ['a.jpg,"[1, 2, 3]",cat', 'a.jpg,"[1, 2, 3, four]",cat', 'a.jpg,"[[1, 2, 3, 4], [5, 6, 7, 8]]",cat']
    with pytest.raises(InputError) as caught:
        load_data(str(write_table(tmp_path / "a.csv", "image,bbox,label", *lines)))
    reason, *problems = caught.value.problems
    assert "no classes" in reason
    assert [problem.partition(": ")[2][:22] for problem in problems] == ["a box must have four n"] * 3


def test_a_split_column(tmp_path: Path, write_table: Write, caplog: pytest.LogCaptureFixture) -> None:
    images = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    splits = ("train", "valid", "TEST", "unlabelled")
    lines = [f"{image},cat,1,1,5,5,{split}" for image, split in zip(images, splits, strict=True)]
    header = "image,label,xmin,ymin,xmax,ymax,split"
    loaded = load_source_data(str(write_table(tmp_path / "a.csv", header, *lines, lines[0], images=images)))
    data = loaded.splits
    assert {split: [Path(one["path"]).name for one in rows["image"]] for split, rows in data.items()} == {
        "train": ["a.jpg"],
        "validation": ["b.jpg"],
        "test": ["c.jpg"],
    }
    assert [len(rows[0]["objects"]["bbox"]) for rows in data.values()] == [2, 1, 1]
    (problem,) = loaded.problems
    assert (problem.kind, problem.count) == ("no split", 1)
    assert "'unlabelled'" in problem.message


def test_a_split_column_with_no_split_or_two_for_an_image(tmp_path: Path, write_table: Write) -> None:
    header = "image,label,xmin,ymin,xmax,ymax,split"
    file = write_table(tmp_path / "a.csv", header, "a.jpg,cat,1,1,5,5,train", "a.jpg,cat,1,1,5,5,val", "b.jpg,,,,,,")
    with pytest.raises(InputError) as caught:
        load_data(str(file))
    assert {problem.removeprefix(f"{file}, ") for problem in caught.value.problems[:-1]} == {
        "line 3: the image 'a.jpg' is in validation, and in train before. Use one split for it",
        "line 4: the split must be train, validation or test, got nothing",
    }
    with pytest.raises(InputError, match=r"'one'.*train, validation and test"):
        load_data(str(write_table(tmp_path / "a.csv", header, "a.jpg,cat,1,1,5,5,one")))


def test_invalid_flags_and_names_that_no_file_has(tmp_path: Path, write_table: Write) -> None:
    header, long = "image,label,xmin,ymin,xmax,ymax,IsGroupOf", "n" * 4000
    data = load_data(str(write_table(tmp_path / "a.csv", header, "a.jpg,cat,1,1,5,5,-1", f"{long},cat,1,1,5,5,1")))
    assert data["train"]["objects"][1]["iscrowd"] == [True]
    with pytest.raises(InputError, match=r"line 2: the crowd column must be yes .* got 'some'"):
        load_data(str(write_table(tmp_path / "a.csv", header, "a.jpg,cat,1,1,5,5,some")))
    with pytest.raises(InputError, match="line 2: must name an image"):
        load_data(str(write_table(tmp_path / "a.csv", header, ".,cat,1,1,5,5,0")))


def test_classes_of_thousands_of_digits_and_descriptions_of_thousands_of_letters(
    tmp_path: Path, write_table: Write
) -> None:
    header, digits = "image,label,xmin,ymin,xmax,ymax", "9" * 5000
    lines = [f"a.jpg,{name},1,1,5,5" for name in (digits, "10", "9", "b")]
    file = write_table(tmp_path / "a.csv", header, *lines)
    assert class_names(load_data(str(file))["train"]) == ["b", "9", "10", digits]
    (tmp_path / "class-descriptions.csv").write_text(f'/m/1,"{"x" * 200_000}"\n')
    with pytest.raises(
        InputError, match=r"class-descriptions\.csv: can't be read as a table of classes \(field larger"
    ):
        load_data(str(file))


def test_a_short_line_belongs_to_its_image_also_before_it_is_known(tmp_path: Path, write_table: Write) -> None:
    header = "filename,class,xmin,ymin,xmax,ymax"
    file = write_table(
        tmp_path / "a.csv", header, "a.jpg,cat,1,1,5", "a.jpg,cat,1,1,5,5", ",cat,1,1,5", images=("a.jpg",)
    )
    data = load_source_data(str(file))
    assert [(one.kind, one.row) for one in data.problems] == [
        ("unreadable annotation", None),
        ("unreadable annotation", 0),
    ]
    assert "line 2" in data.problems[1].message


def test_images_of_other_splits_are_no_background(tmp_path: Path, write_table: Write) -> None:
    lines = ["a.jpg,cat,1,1,5,5,train", "b.jpg,cat,1,1,5,5,unused", "b.jpg,cat,2,2,5,5,unused"]
    header = "image,label,xmin,ymin,xmax,ymax,split"
    file = write_table(tmp_path / "a.csv", header, *lines, images=("a.jpg", "b.jpg", "c.jpg"))
    data = load_source_data(f"csv:{file}", unlabeled="background")
    assert [(one.kind, one.count) for one in data.problems] == [("no split", 2), ("unlabeled", 1)]
    assert [Path(row["image"]["path"]).name for row in data.splits["train"]] == ["a.jpg", "c.jpg"]
    assert [path.name for path in data.annotated] == ["b.jpg"]
