"""Tables on this machine: Parquet files, and what `save_to_disk` wrote."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value

from detr_ft.data.schema import class_names, detection_objects
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError

FEATURES = Features(
    {
        "image": Image(),
        "objects": {"bbox": List(List(Value("float32"), length=4)), "category": List(ClassLabel(names=["ant", "bee"]))},
    }
)
ONE = detection_objects([[1.0, 2.0, 3.0, 4.0]], [1])


@pytest.fixture
def table(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[[int], Dataset]:
    def make(count: int) -> Dataset:
        files = [write_image(tmp_path / "originals" / f"{i}.png", seed=i) for i in range(count)]
        images = [{"path": file.name, "bytes": file.read_bytes()} for file in files]
        objects = [{"bbox": [[1, 2, 3, 4]], "category": [1]}] * count
        return Dataset.from_dict({"image": images, "objects": objects}, features=FEATURES)

    return make


def test_shards_as_the_hub_names_them(tmp_path: Path, table: Callable[[int], Dataset]) -> None:
    folder = tmp_path / "set"
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/validation-00000-of-00001"):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table(2).to_parquet(folder / f"{name}.parquet")
    for spec in (f"parquet:{folder}", str(folder)):
        data = load_data(spec)
        assert {split: len(rows) for split, rows in data.items()} == {"train": 4, "validation": 2}
    assert class_names(data["train"]) == ["ant", "bee"]
    row = data["train"][3]
    assert row["objects"] == ONE
    assert (row["image_id"], row["width"], row["height"]) == (3, 40, 30)
    assert row["image"]["bytes"] == (tmp_path / "originals" / "1.png").read_bytes()


def test_splits_by_folders_and_files_without_a_split(
    tmp_path: Path, table: Callable[[int], Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "set"
    for split in ("train", "test", "extra"):
        (folder / split).mkdir(parents=True)
        table(1).to_parquet(folder / split / "0000.parquet")
    assert list(load_data(f"parquet:{folder}")) == ["train", "test"]
    assert f"{folder / 'extra' / '0000.parquet'}: no split in its name" in caplog.text
    assert list(load_data(str(folder / "extra"))) == ["train"]
    assert list(load_data(str(folder / "test" / "0000.parquet"))) == ["train"]  # named outright


def test_metadata_parquet_names_images_beside_it(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for split, size in (("train", (40, 30)), ("validation", (20, 10))):
        write_image(tmp_path / split / "a.png", size)
        row = {"file_name": "a.png", "objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]], "categories": ["bee"]}}
        Dataset.from_list([row]).to_parquet(tmp_path / split / "metadata.parquet")
    for spec in (f"folder:{tmp_path}", str(tmp_path)):
        data = load_data(spec)
        assert data["validation"][0]["image"] == {"path": str(tmp_path / "validation" / "a.png"), "bytes": None}
        assert (data["train"][0]["width"], data["validation"][0]["width"]) == (40, 20)


def test_saved_dictionaries_and_single_sets(tmp_path: Path, table: Callable[[int], Dataset]) -> None:
    DatasetDict({"train": table(2), "val": table(1)}).save_to_disk(tmp_path / "both")
    table(3).save_to_disk(tmp_path / "one")
    for spec in (f"saved:{tmp_path / 'both'}", str(tmp_path / "both")):
        assert {split: len(rows) for split, rows in load_data(spec).items()} == {"train": 2, "validation": 1}
    row = load_data(str(tmp_path / "one"))["train"][2]
    assert row["objects"] == ONE
    assert row["image"]["bytes"] == (tmp_path / "originals" / "2.png").read_bytes()


def test_save_to_disk_round_trip(tmp_path: Path, write_coco_file: Callable[..., Path]) -> None:
    data = load_data(f"coco:{write_coco_file(tmp_path / 'a.json')}")
    data.save_to_disk(tmp_path / "saved")
    again = load_data(f"saved:{tmp_path / 'saved'}")["train"]
    assert class_names(again) == class_names(data["train"])
    assert again["objects"][:] == data["train"]["objects"][:]
    assert again["image_id"][:] == data["train"]["image_id"][:]
    assert Path(again[0]["image"]["path"]).name == "0_0.png"


def test_selected_rows_have_their_own_images(tmp_path: Path, table: Callable[[int], Dataset]) -> None:
    table(4).select([3, 1]).save_to_disk(tmp_path / "chosen")
    rows = load_data(f"saved:{tmp_path / 'chosen'}")["train"]
    contents = [(tmp_path / "originals" / f"{i}.png").read_bytes() for i in (3, 1)]
    assert [row["image"]["bytes"] for row in rows] == contents


def test_the_box_format_can_be_given(
    tmp_path: Path, table: Callable[[int], Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    table(1).to_parquet(tmp_path / "train.parquet")
    with caplog.at_level(logging.INFO):
        boxes = load_data(str(tmp_path / "train.parquet"), box_format="xyxy")["train"][0]["objects"]["bbox"]
    assert boxes == [[1.0, 2.0, 2.0, 2.0]]
    assert "read as xyxy in pixels (1 of 1 fit their image)" in caplog.text


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("parquet:broken", "can't be loaded .*[Pp]arquet"),
        ("saved:half", "can't be loaded"),
    ],
)
def test_mistakes(tmp_path: Path, spec: str, message: str) -> None:
    for name in ("broken", "half"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "half" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(InputError, match=message):
        load_data(spec, base=tmp_path)


def test_a_struct_whose_path_is_a_number_is_no_image(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"x", "path": 3}, "objects": {"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": ["a"]}}]
    Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match="must have an image column"):
        load_data(f"parquet:{tmp_path}")
