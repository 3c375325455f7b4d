"""Data sets of the Hub: the detection convention, and a Hub that can't be reached."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PillowImage

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.schema import class_names, detection_objects
from detr_ft.data.sources import hub
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError


def png(seed: int) -> dict[str, object]:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    return {"path": f"{seed}.png", "bytes": buffer.getvalue()}


def cppe_like(category: object, labels: list[list[object]], **columns: object) -> Dataset:
    objects = [
        {"id": list(range(len(ls))), "area": [7] * len(ls), "bbox": [[1, 2, 3, 4]] * len(ls), "category": ls}
        for ls in labels
    ]
    fields = {"id": List(Value("int64")), "area": List(Value("int64")), "bbox": List(List(Value("float32"), length=4))}
    features = Features({"image": Image(), "objects": {**fields, "category": List(category)}})
    rows = {"image": [png(i) for i in range(len(labels))], "objects": objects}
    dataset = Dataset.from_dict(rows, features=features)
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    return dataset


def test_the_convention_of_cppe_5(tmp_path: Path) -> None:
    names = ClassLabel(names=["Coverall", "Mask"])
    stated = {"image_id": [15, 19], "width": [943, 40], "height": [663, 30]}
    raw = DatasetDict({"train": cppe_like(names, [[1, 0], []], **stated), "test": cppe_like(names, [[0]])})
    data = to_schema(raw, "hub:x")
    assert class_names(data["train"]) == ["Coverall", "Mask"]
    row = data["train"][0]
    assert row["image"] == png(0)
    assert (row["image_id"], row["width"], row["height"]) == (15, 943, 663)
    assert row["objects"] == detection_objects([[1.0, 2.0, 3.0, 4.0]] * 2, [1, 0], area=[7.0, 7.0])
    assert (data["test"][0]["image_id"], data["test"][0]["width"], data["test"][0]["height"]) == (0, 40, 30)


def test_names_as_text_and_repeated_ids() -> None:
    raw = DatasetDict({"train": cppe_like(Value("string"), [["dog"], ["cat", "ant"]], image_id=[3, 3])})
    rows = to_schema(raw, "hub:x")["train"]
    assert class_names(rows) == ["ant", "cat", "dog"]
    assert rows["objects"][1]["category"] == [1, 0]
    assert rows["image_id"][:] == [0, 1]


def test_a_list_of_dictionaries_and_other_split_names() -> None:
    features = Features({"img": Image(), "faces": List({"bbox": List(Value("float32")), "label": Value("int64")})})
    rows = {"img": [png(0), png(1)], "faces": [[{"bbox": [1, 2, 3, 4], "label": 7}], []]}
    raw = DatasetDict({"valid": Dataset.from_dict(rows, features=features)})
    data = to_schema(raw, "hub:x")
    assert class_names(data["validation"]) == ["7"]
    assert [len(one["bbox"]) for one in data["validation"]["objects"]] == [1, 0]


def test_a_data_set_that_is_not_for_detection() -> None:
    raw = DatasetDict({"train": Dataset.from_dict({"text": ["a"]})})
    with pytest.raises(InputError, match=r"not a detection data set.*it has text"):
        to_schema(raw, "hub:x")
    with pytest.raises(InputError, match=r"hub:x: .*only other"):
        to_schema(DatasetDict({"other": raw["train"]}), "hub:x")


def test_a_box_that_is_incomplete_names_the_row() -> None:
    features = Features(
        {"image": Image(), "objects": {"bbox": List(List(Value("float32"))), "category": List(Value("string"))}}
    )
    rows = {"image": [png(0)], "objects": [{"bbox": [[1, 2, 3]], "category": ["a"]}]}
    raw = DatasetDict({"train": Dataset.from_dict(rows, features=features)})
    with pytest.raises(InputError, match="split train, row 0: object 0 must have a bbox"):
        to_schema(raw, "hub:x")


BOX, LABELS = List(List(Value("float32"))), List(Value("string"))


def detection(objects: object, rows: list[object], images: object = None, image: object = None) -> DatasetDict:
    """A train split of columns `image` and `objects`."""
    columns = {"image": images or [png(i) for i in range(len(rows))], "objects": rows}
    features = Features({"image": image or Image(), "objects": objects})
    return DatasetDict({"train": Dataset.from_dict(columns, features=features)})


@pytest.mark.parametrize("box", ["bbox", "bboxes", "boxes"])
@pytest.mark.parametrize("category", ["category", "categories", "label", "labels", "label_id", "category_id", "class"])
def test_the_names_that_boxes_and_categories_go_by(box: str, category: str) -> None:
    raw = detection({box: BOX, category: LABELS}, [{box: [[1, 2, 3, 4]], category: ["cat"]}, {box: [], category: []}])
    rows = to_schema(raw, "hub:x")["train"]
    assert rows["objects"][0] == detection_objects([[1.0, 2.0, 3.0, 4.0]], [0])
    assert rows["objects"][1]["bbox"] == []


def test_a_category_column_with_names_is_preferred() -> None:
    fields = {"bbox": BOX, "category": List(Value("int64")), "label": List(ClassLabel(names=["ant", "bee"]))}
    raw = detection(fields, [{"bbox": [[1, 2, 3, 4]], "category": [17], "label": [1]}])
    rows = to_schema(raw, "hub:x")["train"]
    assert (class_names(rows), rows["objects"][0]["category"]) == (["ant", "bee"], [1])


def test_boxes_and_categories_as_columns_of_their_own() -> None:
    values = {"image": [png(0)], "id": [70], "bbox": [[[1, 2, 3, 4]]], "category": [[1]], "label": [0]}
    features = Features(
        {
            "image": Image(),
            "id": Value("int64"),
            "bbox": BOX,
            "category": List(ClassLabel(names=["a", "b"])),
            "label": ClassLabel(names=["indoor"]),
        }
    )
    rows = to_schema(DatasetDict({"train": Dataset.from_dict(values, features=features)}), "hub:x")["train"]
    assert rows[0]["objects"] == detection_objects([[1.0, 2.0, 3.0, 4.0]], [1])


def test_numbers_without_names_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    fields = {"bbox": BOX, "category": List(Value("int64"))}
    raw = detection(fields, [{"bbox": [[1, 2, 3, 4]] * 2, "category": [10, 9]}])
    with caplog.at_level(logging.INFO):
        assert class_names(to_schema(raw, "hub:x")["train"]) == ["9", "10"]
    assert "numbers without names: 9, 10" in caplog.text


def test_difficult_truncated_and_crowd_are_read() -> None:
    flags = {"iscrowd": List(Value("int64")), "difficult": List(Value("bool")), "truncated": List(Value("bool"))}
    objects = {"bbox": [[1, 2, 3, 4]], "label": ["a"], "iscrowd": [1], "difficult": [True], "truncated": [False]}
    row = to_schema(detection({"bbox": BOX, "label": LABELS, **flags}, [objects]), "hub:x")["train"][0]
    expected = detection_objects([[1.0, 2.0, 3.0, 4.0]], [0], iscrowd=[True], difficult=[True])
    assert row["objects"] == expected


def test_the_box_format_is_recognized_over_all_splits_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.4, (40, 2))
    corners = np.concatenate([low, low + rng.uniform(0.2, 0.6, (40, 2))], axis=1) * [40, 30, 40, 30]
    rows = [{"bbox": part.tolist(), "label": ["a"] * len(part)} for part in (corners[:38], corners[38:])]
    splits = [detection({"bbox": BOX, "label": LABELS}, [one])["train"] for one in rows]
    raw = DatasetDict({"train": splits[0], "test": splits[1]})
    with caplog.at_level(logging.INFO):
        data = to_schema(raw, "hub:x")
    x0, y0, x1, y1 = corners[39]
    last = data["test"][0]["objects"]
    assert last["bbox"][1] == pytest.approx([x0, y0, x1 - x0, y1 - y0], rel=1e-5)
    assert last["area"][1] == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-5)
    assert re.search(
        r"hub:x: boxes read as xyxy in pixels \(40 of 40 fit their image; as xywh \d+\); box_format overrides",
        caplog.text,
    )
    box = to_schema(raw, "hub:x", BoxFormat("xywh"))["test"][0]["objects"]["bbox"][1]
    assert box == pytest.approx([x0, y0, x1, y1], rel=1e-5)
    assert caplog.records[-1].levelno == logging.WARNING
    assert "box_format doesn't fit them well" in caplog.text


def test_fractions_become_pixels_and_so_do_their_areas() -> None:
    fields = {"bbox": BOX, "label": LABELS, "area": List(Value("float64"))}
    raw = detection(fields, [{"bbox": [[0.5, 0.5, 0.5, 0.25]], "label": ["a"], "area": [0.125]}])
    objects = to_schema(raw, "hub:x", BoxFormat.parse("cxcywh-fractions"))["train"][0]["objects"]
    assert objects["bbox"] == [pytest.approx([10, 11.25, 20, 7.5])]
    assert objects["area"] == [pytest.approx(150)]


STRUCT = {"bytes": Value("binary"), "path": Value("string")}


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (Value("binary"), png(0)["bytes"]),
        (Value("large_binary"), png(0)["bytes"]),
        (STRUCT, png(0)),
        ({"bytes": Value("binary")}, {"bytes": png(0)["bytes"]}),
    ],
)
def test_images_as_bytes(feature: object, value: object) -> None:
    raw = detection({"bbox": BOX, "label": LABELS}, [{"bbox": [[1, 2, 3, 4]], "label": ["a"]}], [value], feature)
    row = to_schema(raw, "hub:x")["train"][0]
    assert row["image"]["bytes"] == png(0)["bytes"]
    assert (row["width"], row["height"]) == (40, 30)


@pytest.mark.parametrize("column", ["image", "image_path", "file_name", "path"])
def test_images_as_paths_from_the_data_set_s_folder(tmp_path: Path, column: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png(0)["bytes"])
    Dataset.from_list([{column: "pictures/a.png", "objects": {"bbox": [[1, 2, 3, 4]], "label": ["a"]}}]).to_json(
        tmp_path / "train.jsonl"
    )
    row = load_data(f"hub:{tmp_path}")["train"][0]
    assert row["image"] == {"path": str(tmp_path / "pictures" / "a.png"), "bytes": None}
    assert (row["width"], row["height"]) == (40, 30)


def test_missing_image_files_are_one_error() -> None:
    rows = [{"bbox": [], "label": []}, {"bbox": [[1, 2, 3, 4]], "label": ["a"]}]
    raw = detection({"bbox": BOX, "label": LABELS}, rows, ["a.png", "b.png"], Value("string"))
    with pytest.raises(InputError, match=r"none of the first 2 .*a\.png.*Put the images"):
        to_schema(raw, "hub:x")


def test_malformed_rows_are_reported_together() -> None:
    fields = {"bbox": BOX, "category": List(ClassLabel(names=["a", "b"])), "area": List(Value("float64"))}
    good = {"bbox": [[1, 2, 3, 4]], "category": [1], "area": [12]}
    rows = [
        good,
        good,
        {**good, "bbox": [None]},
        {**good, "category": [-1]},
        {**good, "bbox": []},
        {**good, "area": [1, 2]},
        {**good, "category": [None]},
    ]
    images = [png(0), None, *(png(i) for i in range(2, 7))]
    with pytest.raises(InputError) as caught:
        to_schema(detection(fields, rows, images), "hub:x")
    assert [problem.removeprefix("hub:x, split train, row ")[:30] for problem in caught.value.problems] == [
        "1: there is no image in column",
        "2: object 0 must have a bbox o",
        "3: object 0 has the category -",
        "4: objects must have the lists",
        "5: area must be a list with on",
        "6: object 0 must have a bbox o",
        "6 images have objects that can",
    ]


def test_data_without_one_object_or_class() -> None:
    raw = detection({"bbox": BOX, "label": LABELS}, [{"bbox": [], "label": []}])
    with pytest.raises(InputError, match="hub:x: must have an object"):
        to_schema(raw, "hub:x")


def to_schema(*arguments: Any) -> DatasetDict:
    """The splits; raises InputError for rows that can't be read."""
    return hub.to_schema(*arguments).checked()


def test_a_local_folder_is_loaded_without_the_hub(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    dataset = cppe_like(Value("string"), [["dog"]])
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data" / "train.parquet")
    assert class_names(load_data(f"hub:{tmp_path}")["train"]) == ["dog"]


@pytest.mark.parametrize("error", hub.NETWORK_ERRORS)
def test_an_unreachable_hub_is_reported_without_retries(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []

    def refuse(*_: object, timeout: float, **__: object) -> None:
        timeouts.append(timeout)
        raise error("no route")

    monkeypatch.setattr(hub.HfApi, "dataset_info", refuse)
    with pytest.raises(InputError, match=r"hub:nobody/nothing: the Hub can't be reached \(no route\)"):
        load_data("hub:nobody/nothing")
    assert timeouts == [hub.TIMEOUT_SECONDS]


def test_a_name_that_the_hub_cant_have() -> None:
    with pytest.raises(InputError, match="not a name of the Hub"):
        load_data("hub:a/b/c d")
