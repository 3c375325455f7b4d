"""Commands and scripts as real processes, forked from one that has imported everything."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp

HANG_SECONDS = 600  # a process that takes longer has hung
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "support.processes",
        "detr_ft.workflows.seeds",
        "detr_ft.workflows.prepare",
        "detr_ft.workflows.train",
        "accelerate",
    ]
)


class ForkedProcess:
    """`python -m detr_ft ...` or `python script.py ...` in a session of its own, with the interface of a Popen."""

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str]) -> None:
        self._outputs = Path(mkdtemp(prefix="forked-"))
        self._process = _CONTEXT.Process(target=_play, args=(command, cwd, dict(env), self._outputs))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its stdout and stderr once it has ended. Raises TimeoutError if it does not."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError((self._outputs / "stderr").read_text())
        return (self._outputs / "stdout").read_text(), (self._outputs / "stderr").read_text()


def run_together(*command: str, processes: int, cwd: Path | None = None) -> None:
    """Run a command or script in several processes of one group, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # fmt: skip
    running = [
        ForkedProcess(*command, cwd=cwd or Path.cwd(), env=group | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=HANG_SECONDS)[1] for process in running]
    assert [process.returncode for process in running] == [0] * processes, outputs


def _play(command: tuple[str, ...], cwd: Path, env: dict[str, str], outputs: Path) -> None:
    os.setsid()
    # A background job of a shell, which these tests may be, ignores Ctrl-C, and so do its child processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(outputs / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.update(env)
    import torch

    from detr_ft.models import benchmark

    torch.set_num_threads(1)
    benchmark._SPEED_SECONDS = 0.05  # tests do not need the speed of the model
    script = command[0].endswith(".py")
    sys.argv = list(command) if script else ["detr-ft", *command]
    if script:
        runpy.run_path(command[0], run_name="__main__")
    else:
        from detr_ft.cli import main

        main()
