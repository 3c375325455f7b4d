"""`detr-ft train --seeds` and `detr-ft compare`, on runs of a minute."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.cli.training_verbs import parse_seeds
from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import RunMetrics
from detr_ft.recipe.load import build_values
from detr_ft.workflows.seeds import run_seeds, seed_statistics

LOADED = build_values(
    {
        "model": {"checkpoint": "embedded:small"},
        "data": {"source": "generated:shapes"},
        "train": {"output_dir": "runs/a"},
    }
)


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner(env={"COLUMNS": "500"}).invoke(app, arguments)
    finally:
        os.chdir(before)
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a recipe, by two seeds, on data without a validation split."""
    folder = tmp_path_factory.mktemp("comparing")
    data = load_data("generated:shapes?train=40&validation=4&edge=64")
    del data["validation"]
    write_coco(data, folder / "data")
    (folder / "recipe.yaml").write_text(
        """\
model: {checkpoint: "embedded:small"}
data: {source: "coco:data", augment: none, validation_fraction: 0.3, longest_edge: 64}
train: {output_dir: runs/a, num_train_epochs: 1, per_device_train_batch_size: 8, learning_rate: 1.0e-4}
"""
    )
    status, _, stderr = run(folder, "train", "recipe.yaml", "--seeds", "3, 4")
    assert status == 0, stderr
    assert "over seeds 3, 4" in stderr
    return folder


def test_seeds_are_summed_up_over_the_same_images(folder: Path) -> None:
    held_out = [(folder / f"runs/a/seed-{seed}/held-out.json").read_text() for seed in (3, 4)]
    assert held_out[0] == held_out[1]
    figures = [json.loads((folder / f"runs/a/seed-{seed}/metrics.json").read_text())["map"] for seed in (3, 4)]
    assert figures[0] != figures[1]
    output = json.loads((folder / "runs/a/seeds.json").read_text())
    assert output["seeds"] == [3, 4]
    assert output["map"]["values"] == figures
    assert output["map"]["mean"] == pytest.approx(sum(figures) / 2)
    assert output["map"]["deviation"] == pytest.approx(abs(figures[0] - figures[1]) / 2**0.5)


def test_seeds_that_are_finished_are_left(folder: Path) -> None:
    status, _, stderr = run(folder, "train", "recipe.yaml", "--seeds", "3,4")
    assert status == 2
    assert "runs/a is not empty" in stderr
    status, _, stderr = run(folder, "train", "recipe.yaml", "--seeds", "3,4", "--resume")
    assert status == 0, stderr
    assert stderr.count("is finished") == 2


def test_runs_are_compared_on_what_they_held_out(folder: Path) -> None:
    runs = ["runs/a/seed-3", "runs/a/seed-4"]
    status, stdout, stderr = run(folder, "compare", *runs)
    assert status == 0, stderr
    assert "95% interval" in stdout
    assert stdout.count("noise") == 1
    status, stdout, _ = run(folder, "compare", *runs, "--json")
    first, second = json.loads(stdout)
    output = [json.loads((folder / one / "metrics.json").read_text()) for one in runs]
    assert [first["figures"]["map"], second["figures"]["map"]] == pytest.approx(
        [one["map"] for one in output], abs=1e-9
    )
    assert first["intervals"]["map"] == pytest.approx(output[0]["intervals"]["map"])
    assert second["differences"]["map"]["value"] == pytest.approx(output[1]["map"] - output[0]["map"], abs=1e-9)
    assert first["differences"] == {}


def test_a_model_equals_itself_and_is_better_than_an_untrained_one(folder: Path, tiny_checkpoint: Path) -> None:
    data = ["--data", "coco:data", "--split", "train", "--json"]
    status, stdout, stderr = run(folder, "compare", "runs/a/seed-3", "runs/a/seed-3", "embedded:small", *data)
    assert status == 0, stderr
    _, same, start = json.loads(stdout)
    assert not any(one and one["real"] for one in same["differences"].values())
    assert start["figures"]["map"] is not None


def test_other_images_are_not_compared(folder: Path) -> None:
    status, _, stderr = run(folder, "train", "recipe.yaml", "train.output_dir=runs/b", "data.split_seed=9")
    assert status == 0, stderr
    status, _, stderr = run(folder, "compare", "runs/a/seed-3", "runs/b")
    assert status == 2
    assert "runs/a/seed-3 and runs/b" in stderr
    assert "--data" in stderr
    status, _, stderr = run(folder, "compare", "runs/a/seed-3")
    assert status == 2
    assert "two models or more" in stderr


@pytest.mark.parametrize("text", ["", "1", "1,1", "1,x", "1,,2", "-1,2", "1;2"])
def test_invalid_seeds_are_reported(text: str) -> None:
    with pytest.raises(InputError, match="--seeds"):
        run_seeds(LOADED, parse_seeds(text))


def test_a_figure_that_a_run_lacks_is_no_zero() -> None:
    statistics = seed_statistics([RunMetrics(map=0.2), RunMetrics(map=0.4, map_50=0.5), RunMetrics(map=0.6)])
    assert statistics["map"].mean == pytest.approx(0.4)
    assert "map_50" not in statistics
