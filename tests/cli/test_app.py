"""The command as people type it: a user's mistake gives one message and status 2, and touches nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data

# Commands in one process, whose client of the Hub doesn't wait before it tries again.
IMPATIENT = """
import json, sys, time
from typer.testing import CliRunner
from detr_ft.cli.app import app
time.sleep = lambda seconds: None
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments)
    print(json.dumps([done.exit_code, done.stdout, done.stderr]))
"""
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}  # nothing listens there


def run(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Status, stdout and stderr of the command."""
    command = [sys.executable, "-m", "detr_ft", *arguments]
    done = subprocess.run(command, cwd=cwd, env=OFFLINE, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """`run` in this process, which is quicker."""

    def run_here(*arguments: str, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("COLUMNS", "500")
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.stdout, done.stderr

    return run_here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Data, a recipe that trains for seconds, and an image that is none."""
    folder = tmp_path_factory.mktemp("cli")
    write_coco(load_data("generated:workshop?train=16&validation=4&edge=64"), folder / "data")
    (folder / "recipe.yaml").write_text(
        f"""\
model: {{checkpoint: {tiny_checkpoint}}}
data: {{source: "coco:data", augment: none}}
train: {{output_dir: runs/a, num_train_epochs: 1, per_device_train_batch_size: 4, logging_steps: 1}}
"""
    )
    (folder / "notes.png").write_text("not an image")
    (folder / "empty").mkdir()
    for seed in range(2):
        (folder / f"runs/seed-{seed}").mkdir(parents=True)
        (folder / f"runs/seed-{seed}/config.json").write_text("{}")
    return folder


@pytest.mark.slow
def test_train_then_everything_else(folder: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    status, stdout, stderr = run("train", "recipe.yaml", cwd=folder)
    assert status == 0, stderr
    assert "step 4/4" in stderr
    assert "detr-ft demo runs/a" in stderr
    assert stdout == ""
    status, stdout, stderr = run("evaluate", "runs/a", "--json", cwd=folder)
    assert status == 0, stderr
    metrics = json.loads((folder / "runs/a/metrics.json").read_text())
    assert json.loads(stdout) == {key: metrics[key] for key in json.loads(stdout)}
    status, _, stderr = here("train", "recipe.yaml", cwd=folder)
    assert status == 2
    assert "not empty" in stderr
    _, stdout, _ = here("push", "runs/a", "me/a", "--dry-run", cwd=folder)
    pictures = {f"examples/{number}{which}.jpg" for number in (1, 2, 3, 4) for which in ("", "-found")}
    assert {Path(line).relative_to("runs/a").as_posix() for line in stdout.split()} == {
        "config.json", "metrics.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "report.html", *pictures,
    }  # fmt: skip
    config = json.loads((folder / "runs/a/config.json").read_text())
    assert config["detr_ft"]["criterion"]["losses"][0]["use"] == "CrossEntropyLoss"
    assert config["auxiliary_loss"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "gone.yaml"], ["gone.yaml: no such file"]),
        (
            ["train", "recipe.yaml", "train.lr=1", "data.sorce=x"],
            ["override train.lr=1: unknown key", "did you mean source?"],
        ),
        (["train", "recipe.yaml", "train.output_dir=x1", "data.source=gone"], ["gone: no such file or folder"]),
        (["train", "recipe.yaml", "train.output_dir=x2", "data.source=empty"], ["empty"]),
        (["train", "recipe.yaml", "train.output_dir=x3", "data.source=generated:nothing"], ["shapes, workshop"]),
        (["train", "recipe.yaml", "train.output_dir=x5", "model.checkpoint=gone/for/good"], ["no such folder"]),
        (["train", "recipe.yaml", "train.output_dir=x6", "model.freeze=[head]"], ["no part 'head'"]),
        (["train", "recipe.yaml", "train.output_dir=recipe.yaml"], ["recipe.yaml: can't be written"]),
        (["evaluate", "empty", "--data", "data"], ["no config.json"]),
        (
            ["evaluate", "embedded:small", "--data", "data", "--box-format", "xyxy"],
            ["box_format xyxy: "],
        ),
        (
            ["predict", "embedded:small", "notes.png", "gone.png", "empty"],
            ["gone.png: no such file", "no images"],
        ),
        (["predict", "embedded:small", "notes.png", "--out", "x8"], ["notes.png: not an image"]),
        (["predict", "embedded:small", "notes.png", "--format", "voc"], ["must be some of coco, yolo", "got voc"]),
        (
            ["evaluate", "data/tarin", "--data", "data"],
            ["data/tarin", "did you mean data/train?"],
        ),
        (["evaluate", "runs"], ["runs: no config.json", "a folder inside it, such as runs/seed-0"]),
        (["evaluate", "data/nothing"], ["data/nothing", "owner/name"]),
        (["export", "data/tarin", "--to", "onnx"], ["data/tarin: no such folder"]),
        (["export", "embedded:small", "--to", "foo", "--out", "x7"], ["to (--to)", "onnx, int8, torch, got foo"]),
        (["export", "embedded:small", "--to", "onnx", "--out", "recipe.yaml/x"], ["recipe.yaml/x: can't be written"]),
        (["doctor", "gone"], ["no such file"]),
        (["doctor", "hub:x/y", "--box-format", "xyhw"], ["'xyhw' is unknown", "xyxy-fractions"]),
        (["new", "data", "-o", "new.yaml", "--box-format", "xyxy"], ["box_format xyxy: "]),
        (["doctor", "data", "--fix", "data"], ["data is not empty"]),
        (["doctor", "data", "--drawn-on", "file"], ["--drawn-on", "--fix"]),
        (["doctor", "data", "--report", "recipe.yaml"], ["recipe.yaml exists"]),
        (["doctor", "data", "--augment-out", "x.png"], ["(--augment-out)", "(--augment)"]),
        (["doctor", "data", "--augment", "recipe.yaml", "--augment-out", "notes.png"], ["notes.png exists"]),
        (["doctor", "data", "--augment", "recipe.yaml", "--augment-out", "x.bmp"], ["x.bmp", ".png"]),
        (["doctor", "data", "--fix", "hub:mine"], ["'mine' can't name a repository"]),
        (["new", "data", "-o", "recipe.yaml"], ["recipe.yaml exists"]),
        (["push", "empty", "me/mine"], ["empty"]),
        (["push", "data", "--dry-run"], ["no name on the Hub"]),
        (["push", "data", "mine", "--dry-run"], ["'mine' can't name a repository"]),
        (["train", "recipe.yaml", "--epochs", "3"], ["No such option: --epochs", "train.num_train_epochs=VALUE"]),
        (["check", "recipe.yaml", "--lr=3"], ["train.learning_rate=VALUE"]),
        (["train", "data"], ["data: is a folder", "detr-ft new data"]),
        (["check"], ["Missing argument"]),
        (["evaluate", "x", "--batch-size", "0"], ["--batch-size"]),
    ],
)
def test_invalid_input_is_reported_and_changes_no_file(
    folder: Path, arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "500")
    before = files(folder)
    done = CliRunner().invoke(app, arguments)
    assert_reported(done.exit_code, done.stdout, done.stderr, words)
    assert files(folder) == before
    assert not list(folder.glob("x[0-9]"))


def test_every_command_reports_invalid_input() -> None:
    """Whatever a command raises ends in a message and a status, by what surrounds it."""
    assert len(app.registered_commands) > 10
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__code__.co_name == "guarded", command.callback.__name__


def test_an_unreachable_hub_is_reported(folder: Path) -> None:
    before = files(folder)
    for_the_hub = str(Path(__file__).parents[2] / "recipes/cppe5/resnet50.yaml")
    requested = {
        ("train", "recipe.yaml", "train.output_dir=x4", "model.checkpoint=nobody/nothing"): "nobody/nothing",
        ("train", "recipe.yaml", "train.output_dir=x4", "data.source=hub:nobody/nothing"): "nobody/nothing",
        ("doctor", "hub:nobody/nothing"): "nobody/nothing",
        ("train", for_the_hub): "cppe-5",
    }
    command = [sys.executable, "-c", IMPATIENT, json.dumps(list(requested))]
    done = subprocess.run(
        command, cwd=folder, env={**OFFLINE, "COLUMNS": "500"}, capture_output=True, text=True, timeout=120, check=True
    )
    for line, name in zip(done.stdout.splitlines(), requested.values(), strict=True):
        status, stdout, stderr = json.loads(line)
        assert_reported(status, stdout, stderr, [name, "be reached"])
    assert files(folder) == before


@pytest.mark.usefixtures("check_in_this_process")
def test_the_recipe_for_the_hub_is_valid(folder: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    recipe = Path(__file__).parents[2] / "recipes/cppe5/resnet50.yaml"
    status, _, stderr = here("check", str(recipe), cwd=folder)
    assert status == 0, stderr


def test_the_doctor_reports_errors_by_its_status_and_repairs_a_copy(
    tmp_path: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    write_coco(load_data("generated:workshop?train=8&validation=4&edge=64"), tmp_path / "data")
    status, stdout, stderr = here("doctor", "data", "--json", cwd=tmp_path)
    assert status == 0, stderr
    assert json.loads(stdout)["findings"] == []
    (tmp_path / "data/train/000003.png").write_bytes(b"no image")
    before = files(tmp_path / "data")
    status, stdout, stderr = here(
        "doctor", "data", "--json", "--report", "page.html", "--fix", "repaired", cwd=tmp_path
    )
    assert status == 2
    message = json.loads(stdout)
    assert [one["kind"] for one in message["findings"]] == ["unreadable"]
    assert message["images_per_second"] > 0
    assert "image left out: unreadable: 1" in stderr
    assert "Traceback" not in stderr
    assert "unreadable" in (tmp_path / "page.html").read_text()
    assert files(tmp_path / "data") == before
    status, stdout, stderr = here("doctor", "repaired", cwd=tmp_path)
    assert status == 0, stderr
    assert stdout.endswith("0 errors, 0 warnings and 1 note: the data can be trained on\n")  # a copy that lacks images
    assert len((tmp_path / "repaired/changes.jsonl").read_text().splitlines()) == 1


def test_the_picture_of_an_augmentation_is_written_and_its_path_logged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = files(folder)
    out = tmp_path / "deep/look.png"
    requested = ["doctor", "data", "--augment", "recipe.yaml"]
    done = CliRunner().invoke(app, [*requested, "--augment-out", str(out)])
    assert (done.exit_code, files(folder)) == (0, before), done.output
    assert f"as recipe.yaml augments them: {out}" in done.stderr
    assert out.is_file()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    done = CliRunner().invoke(app, ["doctor", str(folder / "data"), *requested[2:]])
    assert f"as recipe.yaml augments them: {tmp_path / 'recipe-augmented.png'}" in done.stderr
    assert (tmp_path / "recipe-augmented.png").is_file()


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def assert_reported(status: int, stdout: str, stderr: str, words: list[str]) -> None:
    assert status == 2, stderr
    message = " ".join(stderr.replace("│", " ").split())
    for word in words:
        assert word in message
    assert "Traceback" not in stderr
    assert stdout == ""


def test_debug_shows_the_traceback(folder: Path) -> None:
    assert "Traceback" in run("--debug", "train", "gone.yaml", cwd=folder)[2]


def test_version_is_printed() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("detr-ft")


@pytest.mark.parametrize("arguments", [["-h"], ["train", "-h"], ["doctor", "--help"]])
def test_help_has_a_short_form(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "Usage" in result.output
