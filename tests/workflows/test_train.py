from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detr_ft.data import load_data, write_coco
from detr_ft.errors import InputError
from detr_ft.models import load_model
from detr_ft.recipe import load_recipe, read_recipe
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.workflows.train import TrainOutcome, run_recipe, say_outcome


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
    with pytest.raises(InputError) as caught:
        run_recipe(recipe, criterion, PlainDisplay([].append))
    assert len(caught.value.problems) == 12
    assert all("doesn't exist" in problem for problem in caught.value.problems[:10])
    assert caught.value.problems[10] == "and 3 more"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("seconds", "told"), [(2.6, "took 3 seconds."), (90.0, "took 1.5 minutes.")])
def test_the_end_says_how_long_it_took_and_what_to_type(
    seconds: float, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        say_outcome(TrainOutcome(Path("runs/mine"), None, {"map": 0.5, "map_50": 0.75}, [], seconds))
    assert told in caplog.text
    assert "reaches mAP 0.500;" in caplog.text
    assert "detr-ft demo runs/mine" in caplog.text
    assert "Use your own data" not in caplog.text


def test_the_recipe_in_the_run_names_the_commit(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a branch of the Hub was when the run began, and not what it will be."""
    monkeypatch.setattr("detr_ft.workflows.prepare.commit_of", lambda name, revision: "0123abc")
    monkeypatch.setattr("detr_ft.workflows.prepare.load_model", lambda name, revision, pickled: load_model(name))
    (tmp_path / "recipe.yaml").write_text(
        f'model: {{checkpoint: {tiny_checkpoint}}}\ndata: {{source: "generated:workshop?train=4&validation=0&edge=64"}}\n'
        f"train: {{output_dir: {tmp_path}/run, num_train_epochs: 1, per_device_train_batch_size: 4}}\n"
    )
    recipe, criterion = load_recipe(tmp_path / "recipe.yaml")
    run_recipe(recipe, criterion, PlainDisplay(lambda line: None))
    assert read_recipe(tmp_path / "run/recipe.yaml").model.revision == "0123abc"
