"""A user's mistake is reported before large libraries are imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# Runs each command in one process and prints its status, its message and which of the large libraries are loaded.
COMMANDS = """
import json, sys
from typer.testing import CliRunner
from detr_ft.cli.app import app
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments)
    loaded = sorted({"torch", "datasets", "transformers"} & set(sys.modules))
    print(json.dumps([done.exit_code, done.stderr, loaded]))
"""
RECIPE = """\
model: {checkpoint: embedded:small}
data: {source: "generated:shapes"}
criterion:
  matcher: {use: HungarianMatcher, costs: [{use: ClassCost, weight: 1}]}
  losses: [{use: CrossEntropyLoss, weight: 1, eos_coef: 0.1}]
train: {output_dir: run, num_train_epochs: 1}
"""


def outcomes(folder: Path, commands: list[list[str]]) -> list[tuple[int, str, list[str]]]:
    """Status, messages and large libraries loaded after each command."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)], cwd=folder, capture_output=True, text=True, check=True
    )
    return [(status, errors, loaded) for status, errors, loaded in map(json.loads, done.stdout.splitlines())]


def test_missing_paths_and_keys_are_reported_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "full/inside").mkdir(parents=True)
    expected = {
        ("train", "gone.yaml"): ["gone.yaml"],
        ("train", "recipe.yaml", "train.epochs=3"): ["override train.epochs=3", "num_train_epochs"],
        ("train", "recipe.yaml", "epochs=3"): ["override epochs=3", "train.num_train_epochs=3"],
        ("train", "recipe.yaml", "model.synonyms=nofile.yaml"): ["model.synonyms: nofile.yaml: no such file"],
        ("train", "recipe.yaml", "train.output_dir=full"): ["full is not empty"],
        ("train", "recipe.yaml", "train.output_dir=recipe.yaml/run"): ["recipe.yaml/run: can't be written"],
        ("train", "full"): ["full: is a folder", "detr-ft new full"],
        ("train", "recipe.yaml", "data.source=coco:gone", "model.checkpoint=./gone"): ["gone", "./gone"],
        ("evaluate", "./gone", "--data", "coco:lost"): ["./gone", "lost"],
        ("compare", "./gone", "./lost"): ["./gone", "./lost"],
        ("predict", "./gone", "picture.jpg"): ["./gone", "picture.jpg"],
        ("export", "./gone", "--to", "onnx"): ["./gone"],
        ("demo", "./gone"): ["./gone"],
        ("push", "gone"): ["gone"],
        ("replay", "gone"): ["gone"],
        ("doctor", "gone"): ["gone"],
        ("new", "gone"): ["gone"],
    }
    for arguments, (status, errors, loaded) in zip(
        expected, outcomes(tmp_path, [list(arguments) for arguments in expected]), strict=True
    ):
        assert status == 2, (arguments, errors)
        assert all(part in errors for part in expected[arguments]), (arguments, errors)
        assert not loaded, arguments


def test_criterion_mistakes_are_reported_before_transformers_loads(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("ClassCost", "ClasCost"))
    ((status, errors, loaded),) = outcomes(tmp_path, [["train", "recipe.yaml", "train.epochs=3"]])
    assert status == 2
    assert "recipe.yaml:4" in errors
    assert "num_train_epochs" in errors  # both mistakes at once
    assert "transformers" not in loaded
