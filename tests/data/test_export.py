"""Writing COCO files and reading them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from detr_ft.data.export import write_coco
from detr_ft.data.schema import class_names, detection_features, detection_objects
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError


def one_split(*images: dict[str, object], boxes: list[list[float]] | None = None) -> DatasetDict:
    boxes = boxes if boxes is not None else [[1.5, 2.25, 3.0, 4.0]]
    many = len(boxes)
    objects = [
        detection_objects(
            boxes, [0] * many, area=[9.0] * many, iscrowd=[True] * many, truncated=[True] * many,
            ids=range(1 + many * place, 1 + many * place + many),
        )
        for place in range(len(images))
    ]  # fmt: skip
    columns = {
        "image": list(images),
        "image_id": [7 + i for i in range(len(images))],
        "width": [40] * len(images),
        "height": [30] * len(images),
        "objects": objects,
    }
    return DatasetDict({"validation": Dataset.from_dict(columns, features=detection_features(["dog"]))})


def test_files_boxes_and_classes_round_trip(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    first, second = write_image(tmp_path / "a" / "x.jpg"), write_image(tmp_path / "b" / "X.jpg", seed=1)
    embedded = {"path": None, "bytes": write_image(tmp_path / "y.png").read_bytes()}
    boxes = [[1.5, 2.25, 3.0, 4.0], [0.1, -5.0, 0.0, float("inf")]]
    data = one_split({"path": str(first)}, {"path": str(second)}, embedded, boxes=boxes)
    write_coco(data, tmp_path / "out")
    back = load_data(f"coco:{tmp_path / 'out'}")
    assert list(back) == ["validation"]
    assert class_names(back["validation"]) == ["dog"]
    for column in ("image_id", "width", "height", "objects"):
        assert back["validation"][column][:] == data["validation"][column][:]
    paths = [Path(image["path"]) for image in back["validation"]["image"]]
    assert [path.name for path in paths] == ["x.jpg", "8_X.jpg", "000009.png"]
    assert [path.read_bytes() for path in paths] == [first.read_bytes(), second.read_bytes(), embedded["bytes"]]


def test_generated_data_round_trip(tmp_path: Path) -> None:
    data = load_data("generated:shapes?train=12&validation=12&edge=64&seed=1")
    write_coco(data, tmp_path)
    back = load_data(str(tmp_path))
    assert {name: rows["objects"][:] for name, rows in back.items()} == {
        n: rows["objects"][:] for n, rows in data.items()
    }
    assert class_names(back["train"]) == class_names(data["train"])


def test_nothing_is_overwritten(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    image = write_image(tmp_path / "x.jpg")
    with pytest.raises(InputError, match="is not empty"):
        write_coco(one_split({"path": str(image)}), tmp_path)
    with pytest.raises(InputError, match="it is a file"):
        write_coco(one_split({"path": str(image)}), image)


def test_missing_files_are_reported_before_anything_is_written(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    image = write_image(tmp_path / "x.jpg")
    data = one_split({"path": str(image)}, {"path": str(tmp_path / "gone.jpg")}, {"path": str(tmp_path / "lost.jpg")})
    with pytest.raises(InputError, match=r"gone\.jpg \(image 8\)") as caught:
        write_coco(data, tmp_path / "out")
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    image = write_image(tmp_path / "x.jpg")
    with pytest.raises(InputError, match=r"x\.jpg.*can't be written"):
        write_coco(one_split({"path": str(image)}), image / "out")
