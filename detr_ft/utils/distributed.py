"""Rank and world size of this process from the environment variables of launchers."""

from __future__ import annotations

import os

# As accelerate reads them: torchrun and accelerate launch, then the implementations of MPI.
_RANK_VARIABLES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_WORLD_SIZE_VARIABLES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def rank() -> int:
    """Return the number of this process in its run, over all machines; 0 is the main process."""
    return _first(_RANK_VARIABLES, 0)


def processes() -> int:
    """Return the number of processes of the run, over all machines, as set by its launcher."""
    return _first(_WORLD_SIZE_VARIABLES, 1)


def _first(names: tuple[str, ...], default: int) -> int:
    value = next((os.environ[name] for name in names if os.environ.get(name, "").isdecimal()), None)
    return default if value is None else int(value)
