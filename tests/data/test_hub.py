"""Data sets of the Hub: the detection convention, and a Hub that can't be reached."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PillowImage

from detr_ft.data import class_names, load_data
from detr_ft.data.schema import detection_objects
from detr_ft.data.sources import hub
from detr_ft.errors import UserError


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
    data = hub.to_schema(raw, "hub:x")
    assert class_names(data["train"]) == ["Coverall", "Mask"]
    row = data["train"][0]
    assert row["image"] == png(0)
    assert (row["image_id"], row["width"], row["height"]) == (15, 943, 663)
    assert row["objects"] == detection_objects([[1.0, 2.0, 3.0, 4.0]] * 2, [1, 0], area=[7.0, 7.0])
    assert (data["test"][0]["image_id"], data["test"][0]["width"], data["test"][0]["height"]) == (0, 40, 30)


def test_names_as_text_and_repeated_ids() -> None:
    raw = DatasetDict({"train": cppe_like(Value("string"), [["dog"], ["cat", "ant"]], image_id=[3, 3])})
    rows = hub.to_schema(raw, "hub:x")["train"]
    assert class_names(rows) == ["ant", "cat", "dog"]
    assert rows["objects"][1]["category"] == [1, 0]
    assert rows["image_id"][:] == [0, 1]


def test_a_list_of_dictionaries_and_other_split_names() -> None:
    features = Features({"img": Image(), "faces": List({"bbox": List(Value("float32")), "label": Value("int64")})})
    rows = {"img": [png(0), png(1)], "faces": [[{"bbox": [1, 2, 3, 4], "label": 7}], []]}
    raw = DatasetDict({"valid": Dataset.from_dict(rows, features=features)})
    data = hub.to_schema(raw, "hub:x")
    assert class_names(data["validation"]) == ["7"]
    assert [len(one["bbox"]) for one in data["validation"]["objects"]] == [1, 0]


def test_a_data_set_that_is_not_for_detection() -> None:
    raw = DatasetDict({"train": Dataset.from_dict({"text": ["a"]})})
    with pytest.raises(UserError, match=r"not a detection data set.*it has text"):
        hub.to_schema(raw, "hub:x")
    with pytest.raises(UserError, match="no split with images among other"):
        hub.to_schema(DatasetDict({"other": raw["train"]}), "hub:x")


def test_a_box_that_is_incomplete_names_the_row() -> None:
    features = Features(
        {"image": Image(), "objects": {"bbox": List(List(Value("float32"))), "category": List(Value("string"))}}
    )
    rows = {"image": [png(0)], "objects": [{"bbox": [[1, 2, 3]], "category": ["a"]}]}
    raw = DatasetDict({"train": Dataset.from_dict(rows, features=features)})
    with pytest.raises(UserError, match="split train, row 0: object 0 needs a bbox of four numbers"):
        hub.to_schema(raw, "hub:x")


def test_a_local_folder_is_loaded_without_the_hub(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    dataset = cppe_like(Value("string"), [["dog"]])
    (tmp_path / "data").mkdir()
    dataset.to_parquet(tmp_path / "data" / "train.parquet")
    assert class_names(load_data(f"hub:{tmp_path}")["train"]) == ["dog"]


@pytest.mark.parametrize("error", hub._NETWORK_ERRORS)
def test_a_hub_that_cant_be_reached_is_said_in_seconds(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("no route")

    monkeypatch.setattr(hub.HfApi, "dataset_info", refuse)
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"hub:nobody/nothing: the Hub can't be reached \(no route\)"):
        load_data("hub:nobody/nothing")
    assert time.perf_counter() - start < 5


def test_a_name_that_the_hub_cant_have() -> None:
    with pytest.raises(UserError, match="not a name of the Hub"):
        load_data("hub:a/b/c d")
