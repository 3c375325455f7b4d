"""The launch scripts call torchrun with the intended arguments; a script that records them replaces it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

LAUNCH = Path(__file__).parents[2] / "recipes" / "launch"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Commands that only record their arguments."""
    for name, script in {
        "torchrun": 'echo "torchrun $*"',
        "srun": '"$@"',
        "scontrol": "echo node-0; echo node-1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def call(script: str, recorded: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    own = {"PATH": f"{recorded}:{os.environ['PATH']}"} | environment
    done = subprocess.run([LAUNCH / script, *arguments], env=own, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout.strip(), done.stderr


def test_a_node_joins_the_first(recorded: Path) -> None:
    status, output, _ = call(
        "node.sh", recorded, "mine.yaml", "train.bf16=true", FIRST="a:1234", NODES="2", NODE="1", GPUS="8"
    )
    assert status == 0
    assert output == (
        "torchrun --nnodes 2 --node_rank 1 --nproc_per_node 8 --master_addr a --master_port 1234 "
        "-m detr_ft train mine.yaml train.bf16=true --resume"
    )


def test_a_missing_variable_of_a_node_is_named(recorded: Path) -> None:
    status, _, error = call("node.sh", recorded, "mine.yaml", FIRST="a:1234", NODES="2", GPUS="8")
    assert status != 0
    assert "NODE: which this one is, from 0" in error


def test_slurm_starts_one_launcher_a_machine(recorded: Path) -> None:
    where = {
        "SLURM_JOB_NODELIST": "node-[0-1]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_ID": "7",
    }
    status, output, _ = call("slurm.sh", recorded, "mine.yaml", **where)
    assert status == 0
    assert output == (
        "torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_id 7 --rdzv_endpoint node-0:29500 "
        "-m detr_ft train mine.yaml --resume"
    )
    assert "#SBATCH --ntasks-per-node=1" in (LAUNCH / "slurm.sh").read_text()


def test_accelerate_takes_the_config() -> None:
    config = load_config_from_file(str(LAUNCH / "four-gpus.yaml"))
    assert (config.distributed_type.value, config.num_processes, config.mixed_precision) == ("MULTI_GPU", 4, "no")
