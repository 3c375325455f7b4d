from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from support.holders import lock_holder

from detr_ft.errors import InputError
from detr_ft.utils.lock import Holder, check_free, locked

_FORKS = """\
import os, sys, time
from pathlib import Path
from detr_ft.utils.lock import locked

with locked(Path(sys.argv[1])):
    if os.fork() == 0:  # as a worker of a data loader
        time.sleep(60)
    print("locked", flush=True)
    sys.stdin.read()
"""
_COUNTS = """\
import sys
from pathlib import Path
from detr_ft.errors import InputError
from detr_ft.utils.lock import locked

folder, entered = Path(sys.argv[1]), 0
while entered < 100:
    try:
        with locked(folder):
            counter = folder / "counter"
            value = int(counter.read_text())
            counter.write_text(str(value + 1))
            entered += 1
    except InputError:
        pass
"""


def left_by(folder: Path, **values: object) -> Path:
    """Write the lock file of a process that was killed, on this machine unless `values` name another."""
    file = folder / ".lock"
    own = {
        "pid": 2**22 + 1,
        "host": socket.gethostname(),
        "since": "2024-01-01 00:00:00",
        "command": "detr-ft train a.yaml",
    }
    file.write_text(json.dumps(own | values))
    return file


def test_another_process_is_refused_by_name_until_the_lock_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with lock_holder(folder) as holder:
        for use in (lambda: locked(folder).__enter__(), lambda: check_free(folder)):
            with pytest.raises(InputError) as caught:
                use()
            assert f"{folder} is in use by process {holder.pid} on {socket.gethostname()} since 20" in str(caught.value)
    check_free(folder)
    assert not folder.exists()
    with locked(folder):
        (folder / "file").touch()
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_thread_enters_again_and_another_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    def enter() -> None:
        try:
            with locked(tmp_path / "run/"):
                pass
        except InputError as error:
            refused.append(str(error))

    with locked(tmp_path / "run"):
        with locked(tmp_path / "run"):
            pass
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert f"process {os.getpid()} " in refused[0]
        with lock_holder(tmp_path / "other"):
            pass
        assert (tmp_path / "run/.lock").exists()
    enter()
    assert len(refused) == 1


def test_the_workers_of_a_killed_process_do_not_keep_the_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with lock_holder(tmp_path, _FORKS) as holder:
        (worker,) = psutil.Process(holder.pid).children()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(timeout=60)
        try:
            assert worker.is_running()
            with caplog.at_level(logging.INFO), locked(tmp_path):
                assert Holder.parse((tmp_path / ".lock").read_bytes()) is not None
        finally:
            worker.kill()
    assert f"process {holder.pid} on" in caplog.text
    assert "is taken over" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lock_of_another_machine_is_removed_by_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = left_by(tmp_path, host="node-7")
    with (
        pytest.raises(InputError, match=rf"process 4194305 on node-7 .*can't be checked from .*remove {file}\."),
        locked(tmp_path),
    ):
        pass
    assert "node-7" in file.read_text()
    monkeypatch.setenv("SLURM_JOB_ID", "31")  # the scheduler restarted the job, so it has ended on the other machine
    left_by(tmp_path, host="node-7", job="31")
    with locked(tmp_path):
        assert "node-7" not in file.read_text()
    left_by(tmp_path, host="container-2", boot=Holder.here().boot)  # another container of this machine
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b"null", b'{"pid": "x"}', b'{"pid": 1e999}', b"[" * 9999])
def test_a_lock_file_that_was_not_completely_written_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock").write_bytes(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_without_locks_in_the_file_system_the_named_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    left_by(tmp_path)
    with locked(tmp_path):
        pass
    left_by(tmp_path, pid=os.getppid())
    with pytest.raises(InputError, match=f"in use by process {os.getppid()}"), locked(tmp_path):
        pass
    left_by(tmp_path, host="node-7")
    with pytest.raises(InputError, match="node-7"), locked(tmp_path):
        pass


def test_only_a_plain_file_is_locked(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    file = tmp_path / ".lock"
    for make in (lambda: file.symlink_to("precious"), lambda: os.mkfifo(file), lambda: file.mkdir()):
        make()
        with pytest.raises(InputError, match=rf"{file}: can't be locked: .*Remove it"), locked(tmp_path):
            pass
        file.rmdir() if file.is_dir() else file.unlink()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        with locked(tmp_path):
            pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: can't be written"), locked(tmp_path / "file"):
        pass
    with pytest.raises(InputError, match="run: can't be written"), locked(tmp_path / "file/run"):
        pass


def test_processes_that_hurry_never_hold_it_together(tmp_path: Path) -> None:
    """Each removes the lock file at its end, while others open it."""
    (tmp_path / "counter").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", _COUNTS, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "300"
