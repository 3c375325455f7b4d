"""What accelerate has to be told about the processes of a run."""

from __future__ import annotations

import os

import torch


def on_cpus() -> bool:
    """Whether this is one of several processes on a machine without GPUs, for `cpu=` of Accelerator and PartialState.

    Left to itself, accelerate takes what `torchrun` starts on CPUs for that many runs of one process, each of which
    would train alone and write into the same folder. A single process is left alone: it may find an accelerator.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
