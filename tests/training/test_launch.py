"""Several processes are one run, by any launcher; launches that would fail silently raise an error."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import torch
from support.processes import HANG_SECONDS, run_together
from transformers import DetrForObjectDetection
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

from detr_ft.criterion import detr_criterion
from detr_ft.errors import InputError
from detr_ft.models.attach import attach_criterion
from detr_ft.training.launch import join
from detr_ft.utils.collectives import is_first_report
from detr_ft.utils.distributed import processes, rank

PYTHON = [sys.executable, "-W", "ignore", "-m"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
RECIPE = """
model: {{checkpoint: {checkpoint}}}
data: {{source: "generated:workshop?train=10&validation=5&edge=64"}}
train: {{output_dir: run, num_train_epochs: 2, per_device_train_batch_size: {size}, logging_steps: 1, learning_rate: 0.001}}
"""


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint on one canvas and without dropout, which each process draws by itself."""
    folder = tmp_path_factory.mktemp("exact")
    model = DetrForObjectDetection.from_pretrained(tiny_checkpoint)
    model.config.dropout = model.config.attention_dropout = model.config.activation_dropout = 0.0
    model.save_pretrained(folder)
    square = {"height": 64, "width": 64}
    DetrImageProcessorPil(size={"max_height": 64, "max_width": 64}, pad_size=square).save_pretrained(folder)
    return folder


def command(launcher: list[str], folder: Path, checkpoint: Path, size: int, *more: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(checkpoint=checkpoint, size=size))
    return [*PYTHON, *launcher, "-m", "detr_ft", "train", "recipe.yaml", *more]


def torchrun(number: int) -> list[str]:
    return ["torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]


def accelerate(number: int) -> list[str]:
    options = ["--multi_gpu"] if number > 1 else ["--cpu"]  # for several, on CPUs too: the launcher has no other option
    return ["accelerate.commands.launch", *options, "--num_machines", "1", "--num_processes", str(number), "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]


def run(command: list[str], folder: Path) -> str:
    """Run a command to its end and return its stderr."""
    process = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert process.returncode == 0, process.stderr
    return process.stderr


# An untrained model predicts nearly the same for every query: rounding decides which of them matches an object.
TOSS_UPS = ("changed_between_layers", "changed_since_last", "queries_never_used", "remarks")


@pytest.fixture(scope="module")
def alone(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run by a single process."""
    folder = tmp_path_factory.mktemp("alone")
    run(command(accelerate(1), folder, checkpoint, 4), folder)
    return folder


class Launch(NamedTuple):
    """A finished run of two processes: its folder and what both of them wrote to stderr."""

    folder: Path
    stderr: str


@pytest.fixture(scope="module", params=[torchrun, accelerate])
def two_processes(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    folder = tmp_path_factory.mktemp("two")
    return Launch(folder, run(command(request.param(2), folder, checkpoint, 2), folder))


def assert_one_run(folder: Path, alone: Path) -> None:
    # 10 images in steps of 4: 3 steps an epoch, and an evaluation.
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 3, 4, 5, 6, 6]
    for ours, its in zip(rows(folder), rows(alone), strict=True):
        for name in ours:
            if name not in TOSS_UPS and "second" not in name and ours[name] is not None:
                assert ours[name] == pytest.approx(its[name], rel=1e-4, abs=2e-5), (ours["step"], name)
    assert json.loads((folder / "run/metrics.json").read_text())["map"] is not None
    assert DetrForObjectDetection.from_pretrained(folder / "run").config.num_labels == 5


@pytest.mark.slow
def test_two_processes_are_one_run(two_processes: Launch, alone: Path) -> None:
    assert_one_run(two_processes.folder, alone)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["Matched by HungarianMatcher", "10 images to train", "step 6/6", "Training took"])
def test_only_the_main_process_prints(two_processes: Launch, words: str) -> None:
    assert two_processes.stderr.count(words) == 1, two_processes.stderr


@pytest.mark.slow
def test_four_processes_are_one_run(checkpoint: Path, alone: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(checkpoint=checkpoint, size=1))
    run_together("train", "recipe.yaml", processes=4, cwd=tmp_path)
    assert_one_run(tmp_path, alone)


@pytest.mark.slow
def test_two_nodes_are_one_run(checkpoint: Path, alone: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for node in range(2):
        launcher = ["torch.distributed.run", "--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "1",
                    "--master_addr", "127.0.0.1", "--master_port", str(port)]  # fmt: skip
        home = tmp_path / f"home-{node}"
        home.mkdir()
        own = ENVIRONMENT | {"HF_HOME": str(home), "TMPDIR": str(home)}
        arguments = command(launcher, tmp_path / "shared", checkpoint, 2)
        nodes.append(subprocess.Popen(arguments, cwd=tmp_path / "shared", env=own, stderr=subprocess.PIPE, text=True))
    outputs = [node.communicate(timeout=HANG_SECONDS)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert_one_run(tmp_path / "shared", alone)
    assert ["step 6/6" in output for output in outputs] == [True, False]


@pytest.mark.slow
def test_if_a_process_dies_all_end(checkpoint: Path, tmp_path: Path) -> None:
    long = ["train.num_train_epochs=500", "train.eval_epochs=0"]
    process = subprocess.Popen(
        command(torchrun(2), tmp_path, checkpoint, 2, *long), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    while not ((tmp_path / "run/log.jsonl").exists() and len(rows(tmp_path)) > 5):
        assert process.poll() is None
        time.sleep(0.1)
    launcher = psutil.Process(process.pid)
    family = launcher.children(recursive=True)
    launcher.children()[1].kill()
    assert process.wait(timeout=HANG_SECONDS) != 0
    _, alive = psutil.wait_procs(family, timeout=HANG_SECONDS)
    assert not alive


@pytest.mark.slow
def test_an_error_of_all_processes_is_printed_once(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "model: {checkpoint: embedded:small}\ndata: {source: x}\ntrain: {output_dir: run}\n"
    )
    arguments = [*PYTHON, *torchrun(2), "-m", "detr_ft", "train", "recipe.yaml"]
    process = subprocess.run(
        arguments, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert process.returncode == 1
    assert process.stderr.count("error: ") == 1, process.stderr


@pytest.mark.parametrize(
    ("environment", "devices", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}, 1, "process 2 .* no GPU .*--nproc_per_node 1"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, 1, "LOCAL_RANK.*torchrun"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, 0, "srun starts 4 tasks.*--ntasks-per-node 1"),
        ({"ACCELERATE_DYNAMO_BACKEND": "NO", "MASTER_PORT": "1"}, 0, "accelerate launch .*torchrun"),
        ({"ACCELERATE_USE_FSDP": "true"}, 0, "FSDP .*torchrun"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, 0, "DeepSpeed .*torchrun"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, 0, r"train\.gradient_accumulation_steps=4"),
    ],
    ids=["more processes than GPUs", "no device", "srun", "accelerate's one", "FSDP", "DeepSpeed", "accumulation"],
)
def test_a_launch_that_would_fail_silently_is_an_error(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], devices: int, words: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    with pytest.raises(InputError, match=words):
        join()


def test_data_parallel_is_an_error(tiny_model: DetrForObjectDetection) -> None:
    with pytest.raises(TypeError, match=r"DataParallel.*torchrun --nproc_per_node N"):
        attach_criterion(torch.nn.DataParallel(tiny_model), detr_criterion())  # type: ignore[arg-type]


def test_the_rank_is_that_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert (rank(), processes(), is_first_report("x"), is_first_report("x")) == (0, 1, True, True)
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setenv("PMI_SIZE", "8")
    assert (rank(), processes()) == (3, 8)
    monkeypatch.setenv("RANK", "2")
    assert rank() == 2
