"""A push uploads the files that the run wrote, with the content that it wrote, and lists exactly these before."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import detr_ft
from detr_ft.cli.app import app
from detr_ft.errors import InputError
from detr_ft.hub.card import write_card
from detr_ft.run_directory import WRITTEN, RunDirectory
from detr_ft.workflows.push import push

NAME = "me/bolts-and-nuts"
WRITTEN_BEFORE = Path(__file__).parents[1] / "fixtures/written_before"
TERM = """
from dataclasses import dataclass
from detr_ft.criterion import BoxL1Loss

@dataclass(frozen=True)
class Mine(BoxL1Loss):
    name = "loss_mine"
"""


@pytest.fixture
def recorded(run: Path) -> Path:
    """The run with a record of its files, small enough to be pushed without LFS."""
    for file in ("model.safetensors", "onnx/model.onnx", "examples/1.jpg", "examples/1-found.jpg"):
        (run / file).write_bytes(b"")
    directory = RunDirectory(run)
    directory.start_record()
    names = (
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "recipe.yaml",
        "metrics.json",
        "report.html",
    )
    directory.record([*names, "onnx/model.onnx", "examples/1.jpg", "examples/1-found.jpg"])
    return run


def listed(run: Path, *options: str) -> list[str]:
    done = CliRunner().invoke(app, ["push", str(run), NAME, "--dry-run", *options])
    assert done.exit_code == 0, done.output
    return [line.removeprefix(f"{run}/").partition(" (")[0] for line in done.stdout.splitlines()]


def test_the_listed_files_are_the_uploaded_ones(hub: Any, recorded: Path) -> None:
    before = listed(recorded)
    assert not (recorded / "README.md").exists()
    outcome = push(recorded, NAME)
    assert sorted(hub.repositories[NAME].files) == before
    assert "README.md" in before
    assert [file.relative_to(recorded).as_posix() for file in outcome.files] == before
    assert listed(recorded) == before


FOREIGN = ["README.md", "examples/2.jpg", "model.pt2", "onnx/model_quantized.onnx", "export.json"]
FOREIGN += ["model-00001-of-00002.safetensors"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_the_run_did_not_write_is_refused_or_included(hub: Any, recorded: Path, name: str) -> None:
    (recorded / name).write_bytes(b"{}")
    for dry_run in (True, False):
        with pytest.raises(InputError, match=f"{name}: was not written by this run.*--include {name}"):
            push(recorded, NAME, dry_run=dry_run)
    assert not hub.requests
    assert name in listed(recorded, "--include", name)


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "report.html", "examples/1.jpg", "config.json"])
def test_a_changed_file_is_refused_or_included(hub: Any, recorded: Path, name: str) -> None:
    content = (recorded / name).read_bytes()
    (recorded / name).write_bytes(content + b" ")
    with pytest.raises(InputError, match=f"{name}: was changed after"):
        push(recorded, NAME)
    assert name in listed(recorded, "--include", f"./{name}")
    (recorded / name).write_bytes(content)
    assert name in listed(recorded)


def test_all_files_are_reported_together(recorded: Path) -> None:
    (recorded / "model.pt2").touch()
    (recorded / "report.html").write_text("other")
    with pytest.raises(InputError) as caught:
        push(recorded, NAME, include=["notes.txt"])
    assert [problem.count(name) > 0 for problem, name in zip(
        caught.value.problems, ["notes.txt", "model.pt2", "report.html"], strict=True
    )] == [True] * 3  # fmt: skip


def test_an_edited_card_is_uploaded_and_marked(hub: Any, recorded: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = write_card(recorded, NAME)
    card.write_text(card.read_text() + "\nMine.\n")
    outcome = push(recorded, NAME)
    assert outcome.edited_files == (card,)
    assert hub.repositories[NAME].files["README.md"].endswith(b"Mine.\n")
    assert str(card) in caplog.text
    done = CliRunner().invoke(app, ["push", str(recorded), NAME, "--dry-run"])
    assert "README.md (edited" in done.stdout


def test_a_run_without_a_record_is_pushed_with_a_warning(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcome = push(run, NAME, dry_run=True)
    assert outcome.edited_files == ()
    assert "no record" in caplog.text
    old = push(WRITTEN_BEFORE / "run", NAME, dry_run=True)
    assert {"model.safetensors", "recipe.yaml", "README.md"} <= {file.name for file in old.files}


def test_an_invalid_record_is_reported(recorded: Path) -> None:
    for text in ("[", "[]"):
        (recorded / WRITTEN).write_text(text)
        with pytest.raises(InputError, match=WRITTEN):
            push(recorded, NAME, dry_run=True)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_secret_in_the_weights_stops_the_push(hub: Any, recorded: Path, token: str, dry_run: bool) -> None:
    (recorded / "model.safetensors").write_bytes(b"\x00" + token.encode())
    RunDirectory(recorded).record(["model.safetensors"])
    with pytest.raises(InputError, match=r"model\.safetensors: contains"):
        push(recorded, NAME, dry_run=dry_run)
    assert not hub.requests


@pytest.mark.parametrize("options", [["--dry-run"], ["--dry-run", "--space", "--dataset"], []])
def test_an_invalid_name_is_reported_before_anything(tmp_path: Path, options: list[str]) -> None:
    done = CliRunner().invoke(app, ["push", str(tmp_path), "not a/name", *options])
    assert done.exit_code == 2
    assert "can't name a repository" in done.output


def test_the_name_in_a_recipe_is_checked_with_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "model: {checkpoint: 'embedded:small'}\ndata: {source: 'generated:shapes'}\ntrain: {output_dir: run}\n"
        "hub: {repo_id: bolts}\n"
    )
    with pytest.raises(InputError, match="can't name a repository"):
        detr_ft.load_recipe(tmp_path / "a.yaml")


def test_notes_beside_the_package_are_not_in_a_space(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    for name in ("a.py", "py.typed", "sub/page.jinja", ".env", "notes.txt", "sub/key.pem"):
        (package / name).write_text("x = 1")
    monkeypatch.setattr("detr_ft.hub.space._PACKAGE", package)
    outcome = push(run, NAME, space=True, dry_run=True)
    assert {name for name in outcome.space_files if name.startswith("detr_ft/")} == {
        "detr_ft/a.py", "detr_ft/py.typed", "detr_ft/sub/page.jinja",
    }  # fmt: skip


RECIPE = """\
model: {checkpoint: "embedded:small"}
data: {source: "generated:workshop?train=8&validation=4&edge=64", augment: none}
criterion:
  matcher: {use: HungarianMatcher}
  losses: [{use: CrossEntropyLoss}, {use: "mine.py:Mine"}]
train: {output_dir: run, num_train_epochs: 1, per_device_train_batch_size: 4}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "a.yaml").write_text(RECIPE.replace("output_dir: run", f"output_dir: '{folder}/run'"))
    (folder / "mine.py").write_text(TERM)
    detr_ft.train(folder / "a.yaml")
    return folder / "run"


def test_a_trained_run_has_a_record_of_every_uploaded_file(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    write_card(run, NAME)
    outcome = push(run, NAME, dry_run=True)
    assert outcome.edited_files == ()
    names = {file.relative_to(run).as_posix() for file in outcome.files}
    assert {"mine.py", "config.json", "README.md", "examples/1.jpg", "metrics.json", "report.html"} <= names
    assert names <= (RunDirectory(run).recorded() or {}).keys()
    assert caplog.text == ""
    (run / "mine.py").write_text(TERM + "# mine\n")
    assert push(run, NAME, dry_run=True).edited_files == (run / "mine.py",)
    (run / "examples/9.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"examples/9\.jpg"):
        push(run, NAME, dry_run=True)


@pytest.mark.slow
def test_an_export_is_recorded(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.copytree(run, tmp_path / "old", ignore=shutil.ignore_patterns(WRITTEN))
    detr_ft.export(run, "torch")
    assert {"model.pt2", "export.json"} <= {file.name for file in push(run, NAME, dry_run=True).files}
    detr_ft.export(run, "torch", output_dir=tmp_path / "other")
    assert push(tmp_path / "other", NAME, dry_run=True).edited_files == ()
    detr_ft.export(tmp_path / "old", "torch")  # starts no record, which would lack the other files
    assert not (tmp_path / "old" / WRITTEN).exists()
