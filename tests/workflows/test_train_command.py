"""`train` as real processes that are interrupted, killed and out of space, and `--resume` afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from support.processes import ForkedProcess
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data

ENVIRONMENT = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "detr_ft"]
STEPS = 20  # of the runs below
SIZE = ["train.num_train_epochs=4", "train.per_device_train_batch_size=4"]
SIZE_OF_TWO = ["train.num_train_epochs=4", "train.per_device_train_batch_size=2"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """Data of two orders of classes, and a recipe of 20 steps."""
    folder = tmp_path_factory.mktemp("train")
    data = load_data("generated:workshop?train=20&validation=4&edge=64")
    write_coco(data, folder / "data")
    write_coco(load_data("generated:workshop?train=20&validation=4&edge=64&seed=5"), folder / "others")
    (folder / "recipe.yaml").write_text(
        f"""\
model: {{checkpoint: {tiny_checkpoint}}}
data: {{source: "coco:data", augment: light}}
train: {{output_dir: runs/a, learning_rate: 0.001, logging_steps: 1, warmup_steps: 5}}
"""
    )
    return folder


def start(folder: Path, *arguments: str) -> ForkedProcess:
    return ForkedProcess("train", "recipe.yaml", *arguments, cwd=folder, env=ENVIRONMENT)


def start_two(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TWO, "train", "recipe.yaml", *arguments],
        cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # What a shell starts in the background, these tests perhaps, ignores Ctrl-C, and so do the processes it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def here(folder: Path, *arguments: str) -> tuple[int, str]:
    """The same command in this process, which is quicker where nothing interrupts it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = CliRunner().invoke(app, ["train", "recipe.yaml", *arguments])
    finally:
        os.chdir(before)
    return result.exit_code, result.output


def wait_for_rows(run_folder: Path, rows: int) -> None:
    log, deadline = run_folder / "log.jsonl", time.monotonic() + 90
    while not (log.exists() and log.read_text().count("\n") >= rows):
        assert time.monotonic() < deadline, "the run didn't get so far"
        time.sleep(0.01)


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    stored: dict[str, torch.Tensor] = load_file(run_folder / "model.safetensors")
    return stored


def assert_same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, other)]
    assert [(row["step"], row.get("loss"), row.get("map")) for row in rows[0]] == [
        (row["step"], row.get("loss"), row.get("map")) for row in rows[1]
    ]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    status, message = here(folder, "train.output_dir=runs/whole", *SIZE)
    assert status == 0, message
    return folder / "runs/whole"


def test_killed_and_resumed_is_never_killed(folder: Path, whole: Path) -> None:
    arguments = ["train.output_dir=runs/killed", "train.save_steps=2", *SIZE, "--resume"]
    for rows in (1, 5, 13):  # before the first checkpoint, and after some
        process = start(folder, *arguments)
        wait_for_rows(folder / "runs/killed", rows)
        process.kill()
        process.communicate()
    process = start(folder, *arguments)
    _, message = process.communicate(timeout=180)
    assert process.returncode == 0, message
    assert "resuming from runs/killed/checkpoints/step-" in message
    assert_same_run(folder / "runs/killed", whole)
    status, message = here(folder, *arguments)
    assert status == 0
    assert "runs/killed is finished, 4 epochs: nothing is left to do" in message
    status, message = here(folder, *[one.replace("epochs=4", "epochs=5") for one in arguments])
    assert status == 0, message
    assert "train.num_train_epochs was 4, is 5" in message
    assert json.loads((folder / "runs/killed/log.jsonl").read_text().splitlines()[-1])["epoch"] == 5


def assert_ended_by_signal(process: ForkedProcess | subprocess.Popen[str], cut: Path, status: int) -> None:
    """The process ends before its last step, with a complete checkpoint and without the results of a finished run."""
    _, message = process.communicate(timeout=60)
    assert process.returncode == status, message
    assert "--resume" in message
    assert sorted(path.name for path in cut.iterdir()) == [
        "checkpoints",
        "held-out.json",
        "log.jsonl",
        "recipe.yaml",
        "written.json",
    ]
    (checkpoint,) = (cut / "checkpoints").glob("step-*")
    assert 5 <= int(checkpoint.name.removeprefix("step-")) < STEPS


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_which_is_resumed_exactly(
    folder: Path, whole: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = start(folder, f"train.output_dir={tmp_path}/cut", *SIZE)
    wait_for_rows(tmp_path / "cut", 6)
    process.send_signal(number)
    assert_ended_by_signal(process, tmp_path / "cut", status)
    ended, message = here(folder, f"train.output_dir={tmp_path}/cut", *SIZE, "--resume")
    assert ended == 0, message
    assert_same_run(tmp_path / "cut", whole)


def test_a_signal_to_one_of_two_processes_ends_both(folder: Path, tmp_path: Path) -> None:
    cut, uncut = tmp_path / "cut", tmp_path / "uncut"
    process = start_two(folder, f"train.output_dir={cut}", *SIZE_OF_TWO)
    wait_for_rows(cut, 6)
    psutil.Process(process.pid).children()[1].send_signal(signal.SIGTERM)
    assert_ended_by_signal(process, cut, status=1)  # the launcher's, of processes that ended with another than 0
    for output, resumed in ((cut, ["--resume"]), (uncut, [])):
        process = start_two(folder, f"train.output_dir={output}", *SIZE_OF_TWO, *resumed)
        _, message = process.communicate(timeout=180)
        assert process.returncode == 0, message
    assert_same_run(cut, uncut)


def test_changes_are_listed_and_other_classes_or_data_refused(folder: Path, whole: Path) -> None:
    output = "train.output_dir=runs/changed"
    process = start(folder, output, *SIZE)
    wait_for_rows(folder / "runs/changed", 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    status, message = here(folder, output, *SIZE, "data.source=coco:others", "--resume")
    assert status == 2
    assert "the training data" in message
    assert "--force" in message
    changed = ["train.learning_rate=0.002", "train.seed=3", "train.per_device_train_batch_size=2"]
    status, message = here(folder, output, SIZE[0], *changed, "data.source=coco:others", "--resume", "--force")
    assert status == 0, message
    for words in (
        "the training data", "data.source was", "train.learning_rate was 0.001, is 0.002",
        "train.seed was 0, is 3", "train.per_device_train_batch_size was 4, is 2",
    ):  # fmt: skip
        assert words in message
    status, message = here(folder, output, *SIZE)
    assert status == 2
    assert "--resume" in message
    assert "train.output_dir=" in message


def test_a_full_disk_is_reported_and_leaves_complete_files(folder: Path) -> None:
    """A file that may not grow beyond 64 KiB stands for a full disk: writing fails in the middle of the weights."""
    script = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536));"
        "sys.argv = ['detr-ft', 'train', 'recipe.yaml', 'train.output_dir=runs/full', 'train.save_steps=2', *sys.argv[1:]];"
        "runpy.run_module('detr_ft', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, SIZE[0]],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "runs/full/checkpoints/step-2: the checkpoint can't be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs/full/model.safetensors").exists()
    assert not list((folder / "runs/full/checkpoints").iterdir())
    status, message = here(folder, "train.output_dir=runs/full", SIZE[0], "--resume")
    assert status == 0, message
