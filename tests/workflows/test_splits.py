"""The images that a verb works on, and the options with which their files are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from detr_ft import load_data
from detr_ft.data.export import write_coco
from detr_ft.errors import InputError
from detr_ft.recipe.recipe import DataSection
from detr_ft.workflows.compare import compare
from detr_ft.workflows.evaluate import evaluate
from detr_ft.workflows.export import export
from detr_ft.workflows.new import new_recipe
from detr_ft.workflows.splits import DataOptions, read_data, read_source, split_of

MODEL = "embedded:small"


@pytest.fixture
def separate(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A COCO data set and the folder of its images, which is not near the annotations."""
    write_coco(load_data("generated:shapes?train=0&validation=4&edge=96"), tmp_path / "data")
    (tmp_path / "annotations").mkdir()
    shutil.move(tmp_path / "data/validation/_annotations.coco.json", tmp_path / "annotations/validation.json")
    images = shutil.move(tmp_path / "data/validation", tmp_path_factory.mktemp("elsewhere") / "pictures")
    return f"coco:{tmp_path}/annotations/validation.json", images


VERBS: dict[str, Callable[..., Any]] = {
    "evaluate": lambda data, **options: evaluate(MODEL, data, **options),
    "compare": lambda data, **options: compare([MODEL, MODEL], data, **options),
    "export": lambda data, **options: export(MODEL, "torch", data, **options),
}


@pytest.mark.parametrize("verb", VERBS)
def test_images_in_another_folder(verb: str, separate: tuple[str, Path], tmp_path: Path) -> None:
    data, images = separate
    out = {"output_dir": tmp_path / "out"} if verb == "export" else {}
    with pytest.raises(InputError):
        VERBS[verb](data, **out)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    outcome = VERBS[verb](data, images=images, **out)
    assert outcome is not None
    if verb == "evaluate":
        assert len(outcome.detections) == 4


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", [{"images": "pictures"}, {"box_format": "xyxy"}, {"unlabeled": "skip"}], ids=str)
def test_options_of_files_are_refused_for_objects(verb: str, option: dict[str, Any], tmp_path: Path) -> None:
    data = load_data("generated:shapes?train=0&validation=2&edge=96")
    out = {"output_dir": tmp_path / "out"} if verb == "export" else {}
    with pytest.raises(InputError, match=next(iter(option))):
        VERBS[verb](data, **option, **out)


def test_options_replace_those_of_a_recipe(separate: tuple[str, Path], tmp_path: Path) -> None:
    data, images = separate
    (tmp_path / "train").mkdir()
    as_train = shutil.copy(data.removeprefix("coco:"), tmp_path / "train/train.json")
    section = new_recipe(f"coco:{as_train}", images=images).recipe.data
    assert (section.images, len(read_source(section)["train"])) == (str(images), 4)
    moved = shutil.move(images, tmp_path / "moved")
    with pytest.raises(InputError):
        read_source(section)
    assert len(read_source(section, DataOptions(images=moved))["train"]) == 4


def test_given_options_precede_recorded_ones() -> None:
    recorded = {"box_format": "xyxy", "images": "a", "unlabeled": None, "source": "coco:x"}
    assert DataOptions(images="b").over(recorded) == DataOptions("xyxy", "b", None)
    assert DataOptions(images="b").given() == {"images": "b"}


def test_a_dataset_without_the_columns_is_refused() -> None:
    with pytest.raises(InputError, match="image_id"):
        read_data(Dataset.from_dict({"picture": [1]}))


def test_an_unknown_split_is_refused_with_those_of_the_data() -> None:
    with pytest.raises(InputError, match="validation"):
        split_of(MODEL, "generated:shapes?train=0&validation=2&edge=96", "test")


def test_boxes_in_another_format_are_refused(tmp_path: Path) -> None:
    write_coco(load_data("generated:shapes?train=12&validation=0&edge=96"), tmp_path)
    file = tmp_path / "train/_annotations.coco.json"
    content = json.loads(file.read_text())
    sides = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for row in content["annotations"]:
        row["bbox"] = [value / side for value, side in zip(row["bbox"], 2 * sides[row["image_id"]], strict=True)]
    file.write_text(json.dumps(content))
    for call in (lambda: new_recipe(tmp_path), lambda: evaluate(MODEL, tmp_path)):
        with pytest.raises(InputError, match="likely xywh in fractions"):
            call()
    section = DataSection(source=str(tmp_path))
    with pytest.raises(InputError, match="likely xywh in fractions"):
        read_source(section)


def test_a_stated_box_format_is_not_doubted(tmp_path: Path) -> None:
    """Boxes that fit better as corners are what the user states, in every way to give data."""
    (tmp_path / "images").mkdir()
    lines = ["image,label,x,y,w,h"]
    for number in range(12):
        Image.new("RGB", (60, 40), (20 * number, 9, 9)).save(tmp_path / f"images/{number}.png")
        lines.append(f"{number}.png,circle,20,10,{34 + number},{20 + number}")
    (tmp_path / "train.csv").write_text("\n".join(lines))
    source = f"csv:{tmp_path}"
    read = load_data(source, box_format="xywh")
    assert evaluate(MODEL, source, box_format="xywh").metrics.map is not None
    assert evaluate(MODEL, read).metrics.map is not None
    assert len(split_of(MODEL, read, None)) == 12
