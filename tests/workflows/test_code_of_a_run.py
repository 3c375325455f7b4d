"""A run keeps the code of its recipe: it can be checked, resumed and pushed without the files that it began with."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import pytest
import yaml

import detr_ft
from detr_ft.cli.text import describe_plan
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import plan
from detr_ft.recipe.code import RecipeCode
from detr_ft.recipe.load import build_file
from detr_ft.run_directory import RunDirectory
from detr_ft.workflows.run import TrainOutcome

LOSS = """\
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Mine:
    weight: float = 1.0
    name: ClassVar[str] = "loss_NAME"

    def __call__(self, predictions, targets, matches):
        apart = matches.predicted(predictions.boxes) - matches.target_values(targets.boxes)
        return matches.per_layer((apart**2).sum(-1)) / matches.num_boxes
"""
AUGMENTATION = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Same:
    def __call__(self, image, boxes, labels, random):
        return image, boxes, labels
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with code beside it, in a subfolder, in the folder above and at an absolute path."""
    folder = tmp_path / "work"
    (folder / "terms").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    files = [folder / "mine.py", folder / "terms/mine.py", tmp_path / "mine.py", tmp_path / "elsewhere/other.py"]
    for name, file in zip("abcd", files, strict=True):
        file.write_text(LOSS.replace("NAME", name))
    names = ["mine.py", "terms/mine.py", "../mine.py", str(files[-1])]
    recipe = {
        "model": {"checkpoint": str(tiny_checkpoint)},
        "data": {"source": "generated:workshop?train=6&validation=2&edge=64", "augment": "none"},
        "criterion": {
            "matcher": {"use": "HungarianMatcher"},
            "losses": [{"use": "CrossEntropyLoss"}, *({"use": f"{name}:Mine"} for name in names)],
        },
        "train": {"output_dir": "run", "num_train_epochs": 1, "per_device_train_batch_size": 4},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.chdir(folder)
    return folder


NAMES = ["mine.py", "terms/mine.py", "mine-2.py", "other.py"]


def uses(run: Path) -> list[str]:
    return [loss["use"] for loss in yaml.safe_load((run / "recipe.yaml").read_text())["criterion"]["losses"][1:]]


def test_a_run_is_self_contained(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "detr_ft"):
        detr_ft.train("recipe.yaml")
    assert len(set(re.findall("runs code: .*", caplog.text))) == 4
    run = folder / "run"
    assert uses(run) == [f"{name}:Mine" for name in NAMES]
    assert [(run / name).read_text().partition("loss_")[2][0] for name in NAMES] == list("abcd")
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    shutil.rmtree(folder / "terms")
    for file in (folder / "mine.py", tmp_path / "mine.py", tmp_path / "elsewhere/other.py"):
        file.unlink()
    checked = detr_ft.check(moved / "recipe.yaml")
    assert checked.problems == ()
    assert checked.code_files == tuple(moved / name for name in NAMES)
    pushed = detr_ft.push(moved, "me/mine", dry_run=True)
    assert pushed.code_files == tuple(moved / name for name in NAMES)
    assert set(pushed.code_files) < set(pushed.files)
    assert f"{moved}/mine-2.py (code that the recipe runs)\n" in describe_plan(pushed)
    write_space(plan(moved), "me/mine", tmp_path / "space")
    assert not list((tmp_path / "space/model").glob("**/*.py"))


def test_a_run_resumes_from_either_recipe(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    detr_ft.train("recipe.yaml")
    for number, recipe in enumerate(["recipe.yaml", "run/recipe.yaml"], start=2):
        caplog.clear()
        with caplog.at_level(logging.INFO, "detr_ft"):
            outcome = detr_ft.train(recipe, [f"train.num_train_epochs={number}"], resume=True)
        assert isinstance(outcome, TrainOutcome)
        assert "resuming from" in caplog.text
        assert "criterion was" not in caplog.text
        assert uses(folder / "run") == [f"{name}:Mine" for name in NAMES]
    assert sorted(file.relative_to(folder / "run").as_posix() for file in (folder / "run").rglob("*.py")) == sorted(
        NAMES
    )


def test_a_changed_file_is_copied_beside_the_earlier_one(folder: Path) -> None:
    built, run = build_file(folder / "recipe.yaml"), RunDirectory(folder / "run")
    run.create()
    code = RecipeCode.read(built)
    run.write_text("recipe.yaml", code.recorded(built, run.path).to_yaml())
    code.write(built, run)
    (folder / "mine.py").write_text(LOSS.replace("NAME", "e"))
    changed = RecipeCode.read(built)
    assert list(changed.names_in(run.path).values()) == ["mine-3.py", "terms/mine.py", "mine-2.py", "other.py"]
    changed.write(built, run)
    assert "loss_a" in (run.path / "mine.py").read_text()
    assert "loss_e" in (run.path / "mine-3.py").read_text()
    with pytest.raises(detr_ft.InputError, match="not empty"):
        run.clear_beginnings()  # a file that the recipe does not name
    (run.path / "mine-3.py").unlink()
    (run.path / "terms/note.txt").write_text("")
    with pytest.raises(detr_ft.InputError, match="not empty"):
        run.clear_beginnings()
    (run.path / "terms/note.txt").unlink()
    run.clear_beginnings()
    assert list(run.path.iterdir()) == []


def test_the_code_of_an_augmentation_is_copied_too(folder: Path) -> None:
    (folder / "augment.py").write_text(AUGMENTATION)
    built = build_file(folder / "recipe.yaml", ["data.augment={use: 'augment.py:Same'}"])
    code = RecipeCode.read(built)
    assert "augment.py" in code.contents
    assert code.recorded(built, folder / "run").data.augment == {"use": "augment.py:Same"}


def test_links_and_files_outside_a_run_are_no_code_of_it(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    assert RunDirectory(run).code_files() == [run / "mine.py", run / "terms/mine.py"]
    (run / "mine.py").unlink()
    (run / "mine.py").symlink_to(folder / "mine.py")
    assert RunDirectory(run).code_files() == [run / "terms/mine.py"]
    (run / "recipe.yaml").write_text("criterion: [")
    assert RunDirectory(run).code_files() == []
