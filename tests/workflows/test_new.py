from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image

from detr_ft.data.export import write_coco
from detr_ft.data.pipeline.sampling import balanced_weights
from detr_ft.data.schema import detection_features, detection_objects
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.recipe.load import load_recipe
from detr_ft.workflows.new import new_recipe
from detr_ft.workflows.splits import DataOptions, split_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "photos"
    write_coco(load_data("generated:workshop?train=20&validation=0&edge=160"), folder)
    return folder


def test_the_written_recipe_is_valid_for_the_data(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "recipes/mine.yaml"
    new_recipe(str(photos), out)
    recipe = load_recipe(out)
    assert recipe.data.source == str(photos)
    assert recipe.data.longest_edge == 160
    assert recipe.data.validation_fraction == 0.15
    assert recipe.train.output_dir == "runs/mine"
    text = out.read_text()
    assert "20 images" in text
    assert "gear, wrench" in text
    assert "there is no validation split" in text


@pytest.mark.parametrize(
    ("side", "box", "checkpoint", "edge", "reason"),
    [
        (1000, 100, "embedded:small", 256, "the doctor's advice"),
        (1000, 20, "embedded:small", 416, "the doctor's advice"),
        (2000, 8, "embedded:small", 512, "the doctor advises 1312"),
        (1000, 100, "facebook/detr-resnet-50", 800, "trained with; the doctor advises 256 or more"),
        (2000, 8, "facebook/detr-resnet-50", 1312, "the doctor's advice"),
    ],
)
def test_the_size_of_images_is_the_doctors(
    tmp_path: Path, side: int, box: int, checkpoint: str, edge: int, reason: str
) -> None:
    Image.new("RGB", (side, side)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text(f"image,label,x,y,w,h\na.png,cat,10,10,{box},{box}\n")
    new = new_recipe(f"csv:{tmp_path}", checkpoint=checkpoint)
    assert new.recipe.data.longest_edge == edge
    assert reason in new.text


def test_a_checkpoint_can_be_named(photos: Path, tmp_path: Path) -> None:
    new_recipe(f"coco:{photos}", tmp_path / "big.yaml", checkpoint="facebook/detr-resnet-50")
    recipe = load_recipe(tmp_path / "big.yaml")
    assert recipe.model.revision == "no_timm"
    assert recipe.model.freeze == ["backbone"]  # of 20 images it would learn nothing
    assert recipe.data.longest_edge == 800
    assert recipe.optim.backbone_learning_rate is None  # what is frozen has no rate


def test_the_queries_of_the_checkpoint_are_reported(photos: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    own = json.loads((tiny_checkpoint / "config.json").read_text())["num_queries"]
    for out, checkpoint, queries, more in (
        ("a.yaml", "embedded:small", 25, None), ("b.yaml", str(tiny_checkpoint), own, 100),
    ):  # fmt: skip
        new_recipe(photos, tmp_path / out, checkpoint=checkpoint)
        text = (tmp_path / out).read_text()
        assert (f"# The checkpoint has {queries} queries: " in text) == (more is None)
        assert load_recipe(tmp_path / out).model.num_queries == more
        assert "DETR's number" not in text


def test_boxes_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("image,label,x1,y1,x2,y2\na.png,cat,1,2,9,9\na.png,cat,5,5,5,9\n")
    assert "1 boxes (1 more can't be used: detr-ft doctor), 1 classes" in new_recipe(f"csv:{tmp_path}").text


def test_a_box_format_goes_into_the_recipe_and_into_evaluation(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / split / "a.png")
        (tmp_path / f"{split}.csv").write_text("image,label,x,y,w,h\na.png,cat,20,15,10,6\n")
    run = tmp_path / "run"
    new_recipe(f"csv:{tmp_path}", run / "recipe.yaml", box_format="cxcywh")
    assert load_recipe(run / "recipe.yaml").data.box_format == "cxcywh"
    assert split_of(str(run), None, None)["objects"][0]["bbox"] == [[15, 12, 10, 6]]
    assert split_of(str(run), None, None, DataOptions("xywh"))["objects"][0]["bbox"] != [[15, 12, 10, 6]]


@pytest.mark.parametrize(
    "name", ["bell\a", "del\x7f", "next\x85line", "mark\ufeff", "line\u2028", 'a "b"\\n', "new\nline", "née 😀"]
)
def test_a_path_of_any_characters_is_in_the_recipe(tmp_path: Path, photos: Path, name: str) -> None:
    data = tmp_path / name
    data.symlink_to(photos)
    out = tmp_path / "mine.yaml"
    new_recipe(str(data), out, checkpoint="embedded:small", images=data)
    recipe = load_recipe(out)
    assert recipe.data.source == str(data)
    assert str(recipe.data.images) == str(data)


def test_an_existing_file_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("precious")
    with pytest.raises(InputError, match="exists"):
        new_recipe(str(photos), out)
    assert out.read_text() == "precious"


def test_data_without_a_train_split_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no train split, only validation"):
        new_recipe("generated:workshop?train=0&validation=3", tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize("name", ["bccd_voc", "chess_coco", "cones_yolo"])
def test_real_data_gets_a_valid_recipe(real_data: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    new_recipe(real_data(name), tmp_path / "mine.yaml")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert set(load_data(recipe.data.source)) == {"train", "validation", "test"}


def test_choices_follow_the_data_with_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images, one class in a few of them, crowded: each shows in the recipe, with its reason."""
    monkeypatch.setattr(
        "detr_ft.workflows.new.num_queries_of", lambda *_: None
    )  # as where the checkpoint isn't on this machine
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    rows = [
        {
            "image": {"path": f"{index}.png", "bytes": pixel.getvalue()},
            "image_id": index,
            "width": 1600,
            "height": 1200,
            "objects": detection_objects([[5.0 * k, 8.0, 10.0, 14.0] for k in range(80)], [int(index < 30)] * 80),
        }
        for index in range(1200)
    ]
    data = DatasetDict(train=Dataset.from_list(rows, features=detection_features(["common", "rare"])))
    data.save_to_disk(tmp_path / "data")
    new_recipe(f"saved:{tmp_path / 'data'}", tmp_path / "mine.yaml", checkpoint="facebook/detr-resnet-50")
    recipe = load_recipe(tmp_path / "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text()
    assert recipe.data.augment == "detr"
    assert recipe.data.longest_edge == 1280
    assert recipe.data.repeat_threshold is not None
    assert "class_weights: [" in text
    assert recipe.model.freeze == ["backbone.stem", "backbone.stage1"]
    assert recipe.optim.backbone_learning_rate == 1e-5
    assert re.search(r"num_queries: 150.* 80 objects", text)
    assert recipe.train.per_device_train_batch_size in (1, 2, 4, 8, 16)
    assert "nine boxes in ten" in text


def test_weights_of_classes_are_one_on_average_and_larger_where_rare() -> None:
    split = load_data("generated:workshop?train=20&validation=0")["train"]
    counts = [sum(objects["category"].count(label) for objects in split["objects"]) for label in range(5)]
    weights = balanced_weights(split)
    assert sum(weights) / 5 == pytest.approx(1)
    for a in range(5):
        for b in range(5):
            assert weights[a] / weights[b] == pytest.approx((counts[b] / counts[a]) ** 0.5)
