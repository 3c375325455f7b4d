"""How a run's processes come together through accelerate, and what of their launch would go wrong in silence."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import parse_flag_from_env

from detr_ft.errors import InputError
from detr_ft.utils.collectives import on_cpus
from detr_ft.utils.distributed import processes

logger = logging.getLogger(__name__)

TORCHRUN = "torchrun --nproc_per_node N -m detr_ft train RECIPE"

# They share a model's weights out, where a step, its clipping, the evaluation and what is saved here take them to be whole.
_SHARDED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def join(
    mixed_precision: str | None = None, report_to: Sequence[str] = (), folder: str | Path | None = None
) -> Accelerator:
    """Take this process among those of its run: data-parallel training, each with the whole model.

    Raises InputError, before anything waits for another process, for a launch that would fail in words of its own or train
    something else than was asked for. Trackers to report to write into `folder`, where they are of those that do.
    """
    checks = (_sharded(), _accumulated(), _alone(), _without_device(), _half(mixed_precision), _untracked(report_to))
    problems = [told for told in checks if told]
    if problems:
        raise InputError(problems)
    _forget_other_precision(mixed_precision)
    accelerator = Accelerator(
        cpu=on_cpus(), mixed_precision=mixed_precision, log_with=list(report_to) or None, project_dir=folder
    )
    engine = accelerator.distributed_type.value
    if engine != "NO" and not engine.startswith("MULTI_"):
        raise InputError(_no_engine(engine))
    if mixed_precision:
        _tell_precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), mixed_precision)
    return accelerator


def _forget_other_precision(mixed_precision: str | None) -> None:
    """Let a second run of this process, as notebooks have them, take another precision than the first."""
    state = AcceleratorState._shared_state
    if state and mixed_precision not in (None, AcceleratorState().mixed_precision):
        AcceleratorState._reset_state()


def _sharded() -> str | None:
    engine = next((name for flag, name in _SHARDED.items() if parse_flag_from_env(flag)), None)
    return engine and _no_engine(engine)


def _no_engine(engine: str) -> str:
    return (
        f"{engine}: training isn't made for it, and would go wrong: every process holds the whole model, which a DETR is small "
        f"enough for. Launch without it: {TORCHRUN}, or accelerate launch --multi_gpu --num_processes N -m detr_ft train RECIPE"
    )


def _half(mixed_precision: str | None) -> str | None:
    if mixed_precision != "fp16" or torch.cuda.is_available():
        return None
    return "train.fp16 needs a GPU: on a CPU bf16 is the half precision that works (train.bf16=true)"


def _untracked(report_to: Sequence[str]) -> str | None:
    there = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in report_to if name not in there]
    return (
        f"train.report_to: not installed: {', '.join(missing)} (pip install {' '.join(missing)})" if missing else None
    )


def _accumulated() -> str | None:
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps == "1":
        return None
    return (
        f"the launcher asks for {steps} gradient accumulation steps, by which losses would be divided twice: "
        f"say train.gradient_accumulation_steps={steps} instead"
    )


def _alone() -> str | None:
    """What is wrong where several processes were meant, and each would be a run of its own."""
    if processes() > 1:
        if "LOCAL_RANK" in os.environ or on_cpus():
            return None
        return (
            f"this is one of {processes()} processes, and nothing says which GPU is its own (LOCAL_RANK isn't set): "
            f"start them by {TORCHRUN}"
        )
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "WORLD_SIZE" not in os.environ:
        return (
            f"srun starts {tasks} tasks of this command, and each would be a run of its own: "
            f"start one a machine, srun --ntasks-per-node 1 torchrun ..., as recipes/launch/slurm.sh does"
        )
    # Of several processes accelerate's launcher makes one, and says nothing, on CPUs and on a machine of one GPU.
    by_accelerate = "ACCELERATE_DYNAMO_BACKEND" in os.environ
    if by_accelerate and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        return (
            "accelerate launch was asked for several processes and started one: on CPUs, and on a machine of one GPU, it does "
            f"so without --multi_gpu. Start them by {TORCHRUN}; for one process, --num_processes 1 and no MASTER_PORT"
        )
    return None


def _without_device() -> str | None:
    if processes() == 1 or on_cpus():
        return None
    devices, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if local < devices:
        return None
    return (
        f"this machine has {devices} GPU{'s' if devices > 1 else ''} and was given process {local + 1}: each needs a GPU of its "
        f"own. Start no more than {devices} here (--nproc_per_node {devices}, or --num_processes), "
        "or train on CPUs: CUDA_VISIBLE_DEVICES= before the command"
    )


@functools.cache
def _tell_precision(asked: str, taken: str) -> None:
    """Say once where the launcher and the recipe differ; "no" is what accelerate's launcher says unasked."""
    if asked not in ("no", taken):
        logger.warning("the launcher asks for %s, and the recipe for %s, which is taken: see train.bf16", asked, taken)
