"""`check` reports what `train` would refuse, as far as no data and no weights are needed for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import detr_ft
from detr_ft.cli.app import app
from detr_ft.utils.files import check_new_file, check_new_folder, check_writable

RECIPE = """\
model: {checkpoint: embedded:small, freeze: [backbone], synonyms: names.yaml}
data: {source: "generated:shapes"}
train: {output_dir: run}
"""


pytestmark = pytest.mark.usefixtures("check_in_this_process")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    (tmp_path / "names.yaml").write_text("ring: circle\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stderr


def test_a_valid_recipe_has_no_problems(recipe: Path) -> None:
    outcome = detr_ft.check(recipe)
    assert (outcome.problems, outcome.missing) == ((), ())
    status, stderr = run("check", "recipe.yaml")
    assert status == 0
    assert "the recipe is valid" in stderr
    assert "use --probe" in stderr
    assert "not found here" not in stderr


GONE = ["data.source=coco:gone", "model.checkpoint=./lost", "model.synonyms=nofile.yaml"]


def test_missing_files_are_reported_and_are_no_problems_without_a_probe(recipe: Path) -> None:
    outcome = detr_ft.check(recipe, GONE)
    assert outcome.problems == ()
    assert [line.partition(":")[0] for line in outcome.missing] == ["data.source", "model.checkpoint", "model.synonyms"]
    assert outcome.missing[2].endswith("nofile.yaml: no such file. Paths start at the recipe")
    status, stderr = run("check", "recipe.yaml", *GONE)
    assert status == 0, stderr
    assert [line.split(":")[1].strip() for line in stderr.splitlines() if line.startswith("not found here: ")] == [
        "data.source", "model.checkpoint", "model.synonyms",
    ]  # fmt: skip


def test_missing_files_are_errors_of_a_probe_and_of_training(recipe: Path) -> None:
    for arguments in (["check", "recipe.yaml", *GONE, "--probe"], ["train", "recipe.yaml", *GONE]):
        status, stderr = run(*arguments)
        assert status == 2
        assert stderr.count("error: ") == 3
        assert "nofile.yaml: no such file" in stderr
    for verb in (detr_ft.train, detr_ft.probe):
        with pytest.raises(detr_ft.InputError) as caught:
            verb(recipe, GONE)
        assert len(caught.value.problems) == 3
    assert not Path("run").exists()


def test_unknown_parts_and_invalid_synonyms_are_problems(recipe: Path) -> None:
    (problem,) = detr_ft.check(recipe, ["model.freeze=[backbon]"]).problems
    assert "model.freeze: no part 'backbon' in the model. Use backbone, " in problem
    Path("names.yaml").write_text("ring: [circle]\n")
    (problem,) = detr_ft.check(recipe).problems
    assert "model.synonyms: names.yaml: ring: " in problem
    status, stderr = run("train", "recipe.yaml")
    assert status == 2
    assert "model.synonyms: names.yaml: ring: " in stderr
    for verb in (detr_ft.train, detr_ft.probe):
        with pytest.raises(detr_ft.InputError, match=r"model\.synonyms: names\.yaml: ring: "):
            verb(recipe)


def test_parts_of_a_checkpoint_elsewhere_are_not_checked(recipe: Path) -> None:
    overrides = ["model.freeze=[backbon]", "model.checkpoint=owner/name"]
    assert detr_ft.check(recipe, overrides).problems == ()


def test_output_folders_that_cannot_be_used_are_reported_with_missing_data(recipe: Path) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("")
    for folder, words in (("full", "full is not empty"), ("names.yaml/run", "names.yaml/run: can't be written")):
        status, stderr = run("train", "recipe.yaml", f"train.output_dir={folder}", "data.source=gone")
        assert status == 2
        assert words in stderr
        assert "data.source: gone: no such file" in stderr
        with pytest.raises(detr_ft.InputError, match=words):
            detr_ft.train(recipe, [f"train.output_dir={folder}"])


def test_paths_without_permission_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    check_writable(tmp_path / "locked/a/b")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "locked")
    for check in (check_writable, check_new_file, check_new_folder):
        with pytest.raises(detr_ft.InputError, match=r"locked/a/b: can't be written \(Permission denied\)"):
            check(tmp_path / "locked/a/b")
        check(tmp_path / "other/a")
    with pytest.raises(detr_ft.InputError, match="locked: can't be written"):
        check_new_folder(tmp_path / "locked")
