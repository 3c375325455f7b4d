"""Which of a run's processes this is, by what launchers write into the environment, and who of them speaks."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

# As accelerate reads them: torchrun and accelerate launch, then the implementations of MPI.
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_PATIENCE = timedelta(seconds=5)


def rank() -> int:
    """The number of this process in its run, over all machines; 0 is the main one."""
    return _first(_RANK, 0)


def processes() -> int:
    """How many processes the run has, over all machines, as its launcher says."""
    return _first(_PROCESSES, 1)


def first_to_tell(words: str) -> bool:
    """Whether no other process of the run has told these words before: what all meet alike is then told once.

    The processes meet in the store of their launcher. Where it can't be reached any more, each speaks for itself.
    """
    if processes() == 1:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    digest = hashlib.sha256(words.encode()).hexdigest()
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=_PATIENCE)
        return bool(store.add(f"detr_ft/told/{attempt}/{digest}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True


def _first(names: tuple[str, ...], otherwise: int) -> int:
    said = next((os.environ[name] for name in names if os.environ.get(name, "").isdecimal()), None)
    return otherwise if said is None else int(said)
