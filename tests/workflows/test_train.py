from __future__ import annotations

import os
from pathlib import Path

import pytest

from detr_ft.cli.text import describe_training
from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import RunMetrics
from detr_ft.models.load import load_model
from detr_ft.recipe.load import read_recipe
from detr_ft.workflows.run import TrainOutcome
from detr_ft.workflows.train import train


def test_missing_images_are_reported_together_and_nothing_is_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_coco(load_data("generated:workshop?train=16&validation=2&edge=64"), tmp_path / "data")
    for image in sorted((tmp_path / "data").rglob("*.png"))[:13]:
        image.unlink()
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tiny_checkpoint}}}\n"
        f'data: {{source: "coco:{tmp_path}/data"}}\n'
        f"train: {{output_dir: {tmp_path}/run}}\n"
    )
    with pytest.raises(InputError) as caught:
        train(tmp_path / "recipe.yaml")
    assert len(caught.value.problems) == 12
    assert all("doesn't exist" in problem for problem in caught.value.problems[:10])
    assert caught.value.problems[10] == "and 3 more"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("seconds", "duration"), [(2.6, "took 3 seconds."), (90.0, "took 2 minutes.")])
def test_the_end_reports_duration_and_next_commands(seconds: float, duration: str) -> None:
    outcome = TrainOutcome(Path("runs/mine"), RunMetrics(map=0.5, map_50=0.75), seconds=seconds)
    text = describe_training(outcome)
    assert duration in text
    assert "mAP is 0.500" in text
    assert "detr-ft demo runs/mine" in text
    assert os.fspath(outcome) == "runs/mine"
    assert outcome.report == Path("runs/mine/report.html")


def test_the_recipe_in_the_run_names_the_commit(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe of the run has the commit of a branch, which may change later."""
    monkeypatch.setattr("detr_ft.workflows.prepare.commit_of", lambda name, revision: "0123abc")
    monkeypatch.setattr("detr_ft.workflows.prepare.load_model", lambda name, revision, pickled: load_model(name))
    (tmp_path / "recipe.yaml").write_text(
        f'model: {{checkpoint: {tiny_checkpoint}}}\ndata: {{source: "generated:workshop?train=4&validation=0&edge=64"}}\n'
        f"train: {{output_dir: {tmp_path}/run, num_train_epochs: 1, per_device_train_batch_size: 4}}\n"
    )
    train(tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "run/recipe.yaml").model.revision == "0123abc"
