"""The processes of a run: joining them, and errors for launches that would fail silently."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import parse_flag_from_env

from detr_ft.errors import InputError
from detr_ft.utils.collectives import gather_objects, on_cpus
from detr_ft.utils.distributed import processes, rank
from detr_ft.utils.environment import warn_of_unused_gpu
from detr_ft.utils.lock import locked

logger = logging.getLogger(__name__)

TORCHRUN = "torchrun --nproc_per_node N -m detr_ft train RECIPE"

# Engines that shard the weights; steps, clipping, evaluation and saving here require the whole model in each process.
_SHARDING_ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}


def join(
    mixed_precision: str | None = None, report_to: Sequence[str] = (), folder: str | Path | None = None
) -> Accelerator:
    """Join the processes of the run for data-parallel training, each with the whole model.

    Raises InputError, before any process waits for another, for a launch that would fail with an obscure error or train
    something else. Trackers in `report_to` write into `folder`, if they write files.
    """
    checks = (
        _sharding(),
        _launcher_accumulation(),
        _missing_group(),
        _missing_device(),
        _unsupported_fp16(mixed_precision),
        _missing_trackers(report_to),
    )
    problems = [problem for problem in checks if problem]
    if problems:
        raise InputError(problems)
    warn_of_unused_gpu()
    _reset_precision(mixed_precision)
    accelerator = Accelerator(
        cpu=on_cpus(), mixed_precision=mixed_precision, log_with=list(report_to) or None, project_dir=folder
    )
    engine = accelerator.distributed_type.value
    if engine != "NO" and not engine.startswith("MULTI_"):
        raise InputError(_unsupported_engine(engine))
    if mixed_precision:
        _warn_of_precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), mixed_precision)
    return accelerator


@contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Let no other run write into a folder within the context: the main process holds its lock.

    All processes of a run, which have joined, must call this. They all raise the InputError of a folder that is in use.
    """
    with ExitStack() as stack:
        on_main_process(lambda: stack.enter_context(locked(Path(folder))))
        yield


def on_main_process(work: Callable[[], object]) -> None:
    """Do `work` on the main process, for which all others, having joined, wait; all raise its InputError."""
    problems: list[str] = []
    if rank() == 0:
        try:
            work()
        except InputError as error:
            problems = error.problems
    problems = gather_objects(problems)[0]
    if problems:
        raise InputError(problems)


def _reset_precision(mixed_precision: str | None) -> None:
    """Let a second run of this process, as in notebooks, use another precision than the first."""
    state = AcceleratorState._shared_state
    if state and mixed_precision not in (None, AcceleratorState().mixed_precision):
        AcceleratorState._reset_state()


def _sharding() -> str | None:
    engine = next((name for flag, name in _SHARDING_ENGINES.items() if parse_flag_from_env(flag)), None)
    return engine and _unsupported_engine(engine)


def _unsupported_engine(engine: str) -> str:
    return (
        f"{engine} is not supported: a DETR fits on each device, and every process needs the whole model. Launch with "
        f"{TORCHRUN}, or accelerate launch --multi_gpu --num_processes N -m detr_ft train RECIPE."
    )


def _unsupported_fp16(mixed_precision: str | None) -> str | None:
    if mixed_precision != "fp16" or torch.cuda.is_available():
        return None
    return "train.fp16: fp16 needs a GPU. Use train.bf16=true, which also works on CPUs."


def _missing_trackers(report_to: Sequence[str]) -> str | None:
    available = {str(tracker) for tracker in get_available_trackers()}
    missing = [name for name in report_to if name not in available]
    return f"train.report_to: not installed: {', '.join(missing)}. Use pip install {' '.join(missing)}." if missing else None  # fmt: skip


def _launcher_accumulation() -> str | None:
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps == "1":
        return None
    return (
        f"the launcher sets {steps} gradient accumulation steps, which would divide losses twice. Set "
        f"train.gradient_accumulation_steps={steps} instead."
    )


def _missing_group() -> str | None:
    """Return the problem if several processes were intended, but each would be a run of its own."""
    if processes() > 1:
        if "LOCAL_RANK" in os.environ or on_cpus():
            return None
        return (
            f"this is one of {processes()} processes, and LOCAL_RANK, which selects its GPU, is not set. Start them with "
            f"{TORCHRUN}."
        )
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "WORLD_SIZE" not in os.environ:
        return (
            f"srun starts {tasks} tasks of this command, each of which would be a separate run. Start one task a machine: "
            "srun --ntasks-per-node 1 torchrun ..., as in recipes/launch/slurm.sh."
        )
    # On CPUs and on a machine with one GPU, accelerate's launcher silently starts a single process instead of several.
    by_accelerate = "ACCELERATE_DYNAMO_BACKEND" in os.environ
    if by_accelerate and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        return (
            "accelerate launch started one process instead of several, as it does on CPUs and with one GPU without "
            f"--multi_gpu. Start them with {TORCHRUN}, or use --num_processes 1 and no MASTER_PORT."
        )
    return None


def _missing_device() -> str | None:
    if processes() == 1 or on_cpus():
        return None
    devices, local_rank = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank < devices:
        return None
    return (
        f"process {local_rank + 1} on this machine has no GPU of its own: there {'are' if devices > 1 else 'is'} {devices}. "
        f"Start at most {devices} (--nproc_per_node {devices}, or --num_processes), or train on CPUs with "
        "CUDA_VISIBLE_DEVICES= before the command."
    )


@functools.cache
def _warn_of_precision(launcher: str, recipe: str) -> None:
    """Warn once if launcher and recipe differ; accelerate's launcher sets "no" by default."""
    if launcher not in ("no", recipe):
        logger.warning("the launcher sets %s, but %s of the recipe is used: see train.bf16", launcher, recipe)
