from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict
from PIL import Image

from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.utils.drawing import draw
from detr_ft.workflows.doctor import doctor, preview_augmentation

RECIPE = """
model: {{checkpoint: "embedded:small"}}
data: {{source: x, longest_edge: 320, augment: {augment}}}
train: {{output_dir: runs/x}}
"""


def sheet(tmp_path: Path, augment: str) -> np.ndarray:
    (tmp_path / "mine.yaml").write_text(RECIPE.format(augment=augment))
    preview_augmentation(
        load_data("generated:workshop?train=8&validation=0"), tmp_path / "mine.yaml", tmp_path / "x.png"
    )
    return np.asarray(Image.open(tmp_path / "x.png"))


def test_the_first_column_is_the_images_and_the_others_are_augmented(tmp_path: Path) -> None:
    plain, light = sheet(tmp_path, "none"), sheet(tmp_path, "{use: Light, jitter: 0.5}")
    assert plain.shape == light.shape == (4 * 328 + 8, 5 * 328 + 8, 3)
    cells = [plain[8:328, 8 + 328 * column : 328 * (column + 1)] for column in range(5)]
    assert all(np.array_equal(cells[0], cell) for cell in cells)
    assert np.array_equal(plain[:, :328], light[:, :328])
    assert not any(np.array_equal(cells[0], light[8:328, 8 + 328 * n : 328 * (n + 1)]) for n in range(1, 5))


def test_a_custom_augmentation_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass, replace\n\n\n"
        "@dataclass(frozen=True)\nclass Dark:\n    by: int = 4\n\n"
        "    def __call__(self, sample, random, another):\n        return replace(sample, image=sample.image // self.by)\n"
    )
    made = sheet(tmp_path, '{use: "mine.py:Dark", by: 50}')
    assert np.median(made[8:328, 336:656]) < 10 < np.median(made[8:328, 8:328])


def test_names_are_written_on_images_as_small_as_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def spy(image: Image.Image, *others: Any) -> Image.Image:
        sizes.append(max(image.size))
        return draw(image, *others)

    monkeypatch.setattr("detr_ft.workflows.doctor.draw", spy)
    (tmp_path / "mine.yaml").write_text(RECIPE.format(augment="none").replace("320", "800"))
    data = load_data("generated:workshop?train=4&validation=0&edge=640")
    preview_augmentation(data, tmp_path / "mine.yaml", tmp_path / "x.png")
    assert sizes == [480] * 20
    with Image.open(tmp_path / "x.png") as made:
        assert made.size == (5 * 488 + 8, 4 * 488 + 8)


def test_data_without_a_train_split_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.format(augment="light"))
    data = DatasetDict(test=load_data("generated:workshop?train=2&validation=0")["train"])
    with pytest.raises(InputError, match=r"no train split .* test"):
        preview_augmentation(data, tmp_path / "mine.yaml", tmp_path / "x.png")


def test_data_with_unreadable_objects_are_not_written_as_coco(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    table = "image,label,x1,y1,x2,y2\na.png,cat,1,1,x,5\na.png,cat,1,1,5,5\n"
    (tmp_path / "train.csv").write_text(table)
    with pytest.raises(InputError, match="line 2"):
        doctor(f"csv:{tmp_path}", write_coco=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert doctor(f"csv:{tmp_path}").diagnosis.errors
