"""One process at a time writes into a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.holders import lock_holder
from support.processes import ForkedProcess
from support.small_run import unprepared_trainer
from typer.testing import CliRunner

import detr_ft
from detr_ft.cli.app import app
from detr_ft.errors import InputError
from detr_ft.utils.lock import locked

SPEC = "generated:workshop?train=8&validation=2&edge=64"
ENVIRONMENT = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def train(model: Path, folder: Path, **options: Any) -> object:
    return detr_ft.train(model=model, data=SPEC, output_dir=folder, num_train_epochs=1, **options)


VERBS: dict[str, Callable[[Path, Path], object]] = {
    "train": lambda model, folder: train(model, folder),
    "resume": lambda model, folder: train(model, folder, resume=True),
    "seeds": lambda model, folder: train(model, folder, seeds=[0, 1]),
    "seeds, resumed": lambda model, folder: train(model, folder, seeds=[0, 1], resume=True),
    "one of the seeds": lambda model, folder: train(
        model, folder.parent, overrides=["train.output_dir=" + str(folder)]
    ),
    "evaluate": lambda model, folder: detr_ft.evaluate(model, SPEC, output_dir=folder),
    "export": lambda model, folder: detr_ft.export(model, "torch", SPEC, output_dir=folder),
    "trainer": lambda model, folder: unprepared_trainer(model, folder).train(),
    "trainer, resumed": lambda model, folder: unprepared_trainer(model, folder, checkpoint=folder / "x").train(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_in_use_is_refused_and_stays_as_it_is(tiny_checkpoint: Path, tmp_path: Path, verb: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("{}\n")
    with lock_holder(folder) as holder:
        with pytest.raises(InputError, match=f"run is in use by process {holder.pid} on .*Wait until it ends"):
            VERBS[verb](tiny_checkpoint, folder)
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "log.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_export_into_a_run_that_is_trained_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    best = tmp_path / "run/checkpoints/best"
    best.mkdir(parents=True)
    for folder in (tmp_path / "run", best):
        with lock_holder(tmp_path / "run"), pytest.raises(InputError, match="run is in use by process"):
            detr_ft.export(folder, "torch", SPEC)


def test_the_lock_is_there_from_the_first_file_to_the_last(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked_at: list[tuple[str, bool]] = []
    write = detr_ft.run_directory.RunDirectory.write_bytes  # type: ignore[attr-defined]

    def observed(run: Any, name: str, content: bytes) -> Path:
        locked_at.append((name, (run.path / ".lock").is_file()))
        return Path(write(run, name, content))

    monkeypatch.setattr("detr_ft.run_directory.RunDirectory.write_bytes", observed)
    train(tiny_checkpoint, tmp_path / "run", per_device_train_batch_size=4)
    assert locked_at[0] == ("recipe.yaml", True)
    assert locked_at[-1] == ("metrics.json", True)
    assert all(is_locked for _, is_locked in locked_at)
    assert not (tmp_path / "run/.lock").exists()


def test_the_lock_of_a_start_that_failed_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for wrong in ({"report_to": ["aim"]}, {"overrides": ["data.fold=1"]}, {"seeds": [0, 1], "report_to": ["aim"]}):
        with pytest.raises(InputError):
            train(tiny_checkpoint, tmp_path / "runs/a", **wrong)
        assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_lock_of_a_killed_run_is_no_file_of_a_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The folder is empty without it, for a new run and for one that is resumed before its first checkpoint."""
    for resume in (False, True):
        folder = tmp_path / f"run-{resume}"
        folder.mkdir()
        (folder / ".lock").write_text('{"pid": 4194305, "host": ""}' if resume else "")
        if resume:
            (folder / ".lock").write_text("")
            (folder / ".recipe.yaml.partial").write_text("model: {")  # killed while it wrote this file
        train(tiny_checkpoint, folder, resume=resume, per_device_train_batch_size=4)
        assert not (folder / ".lock").exists()
        assert (folder / "metrics.json").is_file()


RECIPE = """\
model: {{checkpoint: {checkpoint}}}
data: {{source: "generated:workshop?train=20&validation=4&edge=64"}}
train: {{output_dir: run, num_train_epochs: 4000, per_device_train_batch_size: 4, logging_steps: 1, save_steps: 2, dataloader_num_workers: 2}}
"""


@pytest.mark.slow
def test_a_killed_run_is_resumed_while_its_workers_still_run(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(checkpoint=tiny_checkpoint))
    process = ForkedProcess("train", "recipe.yaml", cwd=tmp_path, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run/checkpoints").glob("step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    monkeypatch.chdir(tmp_path)
    for arguments in (["--resume"], []):
        second = CliRunner().invoke(app, ["train", "recipe.yaml", *arguments])
        assert second.exit_code == 2
        assert f"run is in use by process {process.pid}" in second.output
    workers = psutil.Process(process.pid).children()
    assert workers
    for worker in workers:
        worker.suspend()  # it does not notice that its parent has ended
    process.kill()
    process.communicate(timeout=60)
    try:
        with locked(tmp_path / "run"):
            assert all(worker.is_running() for worker in workers)
    finally:
        for worker in workers:
            worker.kill()
    again = CliRunner().invoke(app, ["train", "recipe.yaml", "--resume", "train.num_train_epochs=2"])
    assert again.exit_code == 0, again.output


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--resume"], ["--seeds", "0,1", "--resume"]], ids=["run", "seeds"])
def test_all_processes_of_a_run_end_with_one_message(
    tiny_checkpoint: Path, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(checkpoint=tiny_checkpoint))
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "detr_ft"]
    with lock_holder(tmp_path / "run") as holder:
        done = subprocess.run(
            [sys.executable, *two, "train", "recipe.yaml", *arguments],
            cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1, "the launcher's, of processes that ended with another than 0"
    assert done.stderr.count(f"is in use by process {holder.pid}") == 1, done.stderr
    assert "exitcode  : 2" in done.stderr
    assert "Signal" not in done.stderr
