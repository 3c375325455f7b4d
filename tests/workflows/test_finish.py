"""The end of a run, of several seeds and of an evaluation: interrupted anywhere, it is completed by the next command."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import ForkedProcess

import detr_ft
from detr_ft.errors import InputError
from detr_ft.run_directory import WRITTEN
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.speed import Speed
from detr_ft.workflows.run import TrainOutcome
from detr_ft.workflows.seeds import SeedsOutcome

SHAPES = "generated:shapes?train=1&validation=2&edge=64"
SPEC = "generated:workshop?train=12&validation=4&edge=64"
TIMES = {"seconds", "peak_memory_mib", "watt_hours", "images_per_second", "seconds_per_step"}
SPEED = Speed("here", 1, (64, 64), 1, 1.0, (1.0, 1.0), 4, 1.0, None)  # the measured one differs from run to run


class Killed(BaseException):
    """Stands for the end of the process."""


def train(start: Path, resume: bool = False, **settings: Any) -> TrainOutcome:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "logging_steps": 1} | settings
    outcome = detr_ft.train(model=start, data=SPEC, output_dir="run", resume=resume, **settings)
    assert isinstance(outcome, TrainOutcome)
    return outcome


def contents(run: Path) -> dict[str, object]:
    """The files of a run, without times, and without checkpoints, whose states have times."""
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    return {name: content_of(path) for name, path in files.items() if not name.startswith("checkpoints/step")}


def content_of(file: Path) -> object:
    if file.suffix == ".json":
        value = json.loads(file.read_text())
        if file.name == WRITTEN:
            return sorted(value)  # the digests of files with times differ
        return {key: one for key, one in value.items() if key not in TIMES} if isinstance(value, dict) else value
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return file.read_bytes()


@pytest.fixture(autouse=True)
def equal_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detr_ft.workflows.results.measure", lambda *_: SPEED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("detr_ft.workflows.results.measure", lambda *_: SPEED)
        train(tiny_checkpoint, ema_decay=0.9)
    return folder / "run"


PLACES = (  # functions of the end of a run, in their order, of which one is not reached any more
    "detr_ft.training.monitor.evaluator.coco_metrics",
    "detr_ft.training.trainer.save_model_folder",
    "detr_ft.models.save.save_as_stock",
    "detr_ft.workflows.results.score",
    "detr_ft.workflows.run.save_predictions",
    "detr_ft.report.pictures.draw",
    "detr_ft.workflows.run.write_metrics",
)


def killed(*_: object, **options: object) -> Any:
    raise Killed


def call_killed_in(place: str, call: Callable[[], object], replacement: Callable[..., Any] = killed) -> None:
    """Call something that ends as if the process were killed in a function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, replacement)
        with pytest.raises(Killed):
            call()


@pytest.mark.slow
def test_a_run_that_is_killed_at_each_place_of_its_end_is_completed(
    tiny_checkpoint: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process is killed a little later than the first, and so on."""
    monkeypatch.chdir(tmp_path)
    steps: list[int] = []
    step = DetrTrainer._step

    def counted(trainer: DetrTrainer, batch: Any) -> Any:
        steps.append(trainer.progress.step + 1)
        return step(trainer, batch)

    monkeypatch.setattr(DetrTrainer, "_step", counted)
    save, trainer = DetrTrainer.save_checkpoint, "detr_ft.training.trainer.DetrTrainer"
    call_killed_in(
        f"{trainer}.save_checkpoint",
        lambda: train(tiny_checkpoint, ema_decay=0.9),
        lambda trainer: (save(trainer), killed()),
    )
    for place in PLACES:
        call_killed_in(place, lambda: train(tiny_checkpoint, resume=True, ema_decay=0.9))
        assert not Path("run/metrics.json").exists()
    assert not train(tiny_checkpoint, resume=True, ema_decay=0.9).was_finished
    assert steps == [1, 2, 3, 4, 5, 6]
    found, expected = contents(Path("run")), contents(whole)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert train(tiny_checkpoint, resume=True, ema_decay=0.9).was_finished


def test_a_longer_run_has_no_results_of_the_shorter_one_meanwhile(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny_checkpoint, num_train_epochs=1)
    call_killed_in("detr_ft.training.trainer.DetrTrainer._step", lambda: train(tiny_checkpoint, resume=True))
    left = {path.name for path in Path("run").iterdir()}
    assert not left & {"metrics.json", "report.html", "predictions.json"}
    assert {"model.safetensors", "config.json", "log.jsonl", "recipe.yaml", "held-out.json"} <= left


def test_seeds_are_summarized_last(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def seeds(resume: bool = False, **settings: Any) -> SeedsOutcome:
        settings = {"num_train_epochs": 1, "per_device_train_batch_size": 4} | settings
        outcome = detr_ft.train(
            model=tiny_checkpoint, data=SPEC, output_dir="runs", seeds=[0, 1], resume=resume, **settings
        )
        assert isinstance(outcome, SeedsOutcome)
        return outcome

    call_killed_in("detr_ft.workflows.seeds.seed_statistics", seeds)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["seed-0", "seed-1"]
    with pytest.raises(InputError, match=r"runs is not empty.*--resume"):
        seeds()
    outcome = seeds(resume=True)
    assert all(run.was_finished for run in outcome.runs.values())
    written = Path("runs/seeds.json").read_text()
    assert json.loads(written)["seeds"] == [0, 1]
    call_killed_in("detr_ft.workflows.run.write_metrics", lambda: seeds(resume=True, num_train_epochs=2))
    assert not Path("runs/seeds.json").exists()


@pytest.mark.parametrize("place", ["results.render_page", "evaluate.render_markdown", "evaluate.write_metrics"])
def test_an_interrupted_evaluation_is_no_finished_one(tmp_path: Path, place: str) -> None:
    def evaluate() -> object:
        return detr_ft.evaluate("embedded:small", SHAPES, split="validation", output_dir=tmp_path / "out")

    call_killed_in(f"detr_ft.workflows.{place}", evaluate)
    assert not (tmp_path / "out/metrics.json").exists()
    if place == "results.render_page":  # nothing was written
        assert not (tmp_path / "out").exists()
        return
    with pytest.raises(InputError, match=r"out has a report\.html and no metrics\.json.*Remove the folder"):
        evaluate()


RECIPE = """\
model: {{checkpoint: {checkpoint}}}
data: {{source: "generated:workshop?train=12&validation=4&edge=64"}}
train: {{output_dir: run, num_train_epochs: 2, per_device_train_batch_size: 4, logging_steps: 1}}
"""
ENVIRONMENT = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "file"),
    [
        (signal.SIGTERM, "model.safetensors"),
        (signal.SIGKILL, "model.safetensors"),
        (signal.SIGTERM, "report.html"),
        (signal.SIGKILL, "predictions.json"),
    ],
)
def test_a_signal_at_the_end_of_a_run_leaves_one_that_is_completed(
    tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals, file: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(checkpoint=tiny_checkpoint))

    def command() -> ForkedProcess:
        return ForkedProcess("train", "recipe.yaml", "--resume", cwd=tmp_path, env=ENVIRONMENT)

    process, deadline = command(), time.monotonic() + 120
    while not (tmp_path / "run" / file).exists():
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-number, 128 + number)  # the second one while the trainer handles signals
    assert not (tmp_path / "run/metrics.json").exists()
    log = (tmp_path / "run/log.jsonl").read_bytes()
    weights = (tmp_path / "run/model.safetensors").read_bytes()
    process = command()
    _, message = process.communicate(timeout=120)
    assert process.returncode == 0, message
    assert (tmp_path / "run/log.jsonl").read_bytes() == log
    assert (tmp_path / "run/model.safetensors").read_bytes() == weights
    assert (tmp_path / "run/metrics.json").is_file()
    assert sorted(path.name for path in (tmp_path / "run/examples").iterdir())[:2] == ["1-found.jpg", "1.jpg"]
