from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoImageProcessor

from detr_ft.data import load_data, write_coco
from detr_ft.data.transforms import ImageFormat
from detr_ft.errors import UserError
from detr_ft.recipe import load_recipe
from detr_ft.run import prepare, run_recipe
from detr_ft.training.display import PlainDisplay


@pytest.mark.parametrize("square", [True, False])
def test_another_size_moves_the_canvas_along(tiny_checkpoint: Path, tmp_path: Path, square: bool) -> None:
    """A checkpoint that was trained on a square is trained, and served, on the new size's square."""
    processor = AutoImageProcessor.from_pretrained(tiny_checkpoint)
    processor.pad_size = {"height": 64, "width": 64} if square else None
    (tmp_path / "start").mkdir()
    for file in tiny_checkpoint.iterdir():
        (tmp_path / "start" / file.name).write_bytes(file.read_bytes())
    processor.save_pretrained(tmp_path / "start")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tmp_path}/start}}\n"
        'data: {source: "generated:workshop?train=4&validation=2&edge=64", longest_edge: 96}\n'
        "train: {output_dir: runs/x}\n"
    )
    recipe, _ = load_recipe(tmp_path / "recipe.yaml")
    prepared = prepare(recipe, load_data(recipe.data.source))
    prepared.processor.save_pretrained(tmp_path / "saved")
    served = ImageFormat.of(AutoImageProcessor.from_pretrained(tmp_path / "saved"))
    assert served.canvas == ((96, 96) if square else None)
    assert served.resized(64, 32) == (96, 48)


def test_missing_images_are_told_together_and_nothing_is_made(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_coco(load_data("generated:workshop?train=16&validation=2&edge=64"), tmp_path / "data")
    for image in sorted((tmp_path / "data").rglob("*.png"))[:13]:
        image.unlink()
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tiny_checkpoint}}}\n"
        f'data: {{source: "coco:{tmp_path}/data"}}\n'
        f"train: {{output_dir: {tmp_path}/run}}\n"
    )
    recipe, criterion = load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UserError) as caught:
        run_recipe(recipe, criterion, PlainDisplay([].append))
    assert len(caught.value.problems) == 11
    assert all("doesn't exist" in problem for problem in caught.value.problems[:10])
    assert caught.value.problems[-1] == "and 3 more"
    assert not (tmp_path / "run").exists()
