"""A lock on a folder: one process at a time writes there."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from detr_ft.errors import InputError
from detr_ft.utils.files import LOCK, writing

logger = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")  # containers of one machine share it, but have host names of their own
_MAX_BYTES = 4096
_MAX_COMMAND_CHARS = 200
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}

_owners: dict[
    Path, tuple[int, int]
] = {}  # process and thread of each lock; a forked process inherits entries, not locks
_guard = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """The process that wrote a lock file.

    `boot` and `job` identify its machine and its Slurm job; empty if unknown.
    """

    pid: int
    host: str
    since: str
    command: str
    boot: str = ""
    job: str = ""

    @classmethod
    def here(cls) -> Holder:
        """Return this process."""
        since, host = time.strftime("%Y-%m-%d %H:%M:%S"), socket.gethostname()
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND_CHARS]
        boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
        return cls(os.getpid(), host, since, command, boot, os.environ.get("SLURM_JOB_ID", ""))

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """Return the process that a lock file names; None for one that was not completely written."""
        try:
            values: Any = json.loads(content)
            texts = {name: str(values.get(name, "")) for name in ("host", "since", "command", "boot", "job")}
            return cls(int(values["pid"]), **texts)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            return None

    def is_of_this_machine(self) -> bool:
        """Return whether its end can be known here: it ran on this machine, or in this Slurm job before."""
        here = Holder.here()
        return any(own and own == other for own, other in zip(here._places(), self._places(), strict=True))

    def _places(self) -> tuple[str, str, str]:
        return self.host, self.boot, self.job

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since} ({self.command})"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created if it is missing, within the context.

    The kernel releases the lock when the process ends, also of a process that was killed while its workers still run. The
    thread that holds it may enter again. A folder that can't be written is not locked. Raises InputError that names the
    process which has the lock.
    """
    key, owner = folder.resolve(), (os.getpid(), threading.get_ident())
    if _owners.get(key) == owner:
        yield
        return
    created = _create(folder)
    handle = None
    try:
        with _guard:
            if _owners.get(key, (0, 0))[0] == os.getpid():
                raise _in_use(folder, Holder.here())
            handle = _open_locked(folder)
            if handle is not None:
                _owners[key] = owner
        yield
    finally:
        if handle is not None:
            del _owners[key]
            _release(folder / LOCK, handle)
        for empty in created:
            with suppress(OSError):
                empty.rmdir()


def check_free(folder: Path) -> None:
    """Raise InputError if another process has the lock of a folder; nothing is written."""
    if (folder / LOCK).exists():
        with locked(folder):
            pass


def _create(folder: Path) -> list[Path]:
    """Create a folder and return the folders that were missing, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _open_locked(folder: Path) -> int | None:
    """Open and lock the lock file; None in a folder that can't be written.

    Raises InputError if another process has locked it.
    """
    file = folder / LOCK
    while True:
        try:
            # A link could lead to a file of the user, which would be overwritten.
            handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # the process that created the folder has ended, and removed it again
            _create(folder)
            continue
        except OSError as error:
            if error.errno == errno.EROFS or not os.access(folder, os.W_OK):
                return None
            raise _unusable(file, error.strerror or str(error)) from error
        try:
            if _lock(folder, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(folder: Path, handle: int) -> bool:
    """Lock an open lock file and write this process into it; False if its holder removed it meanwhile."""
    file = folder / LOCK
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise _unusable(file, "it is no plain file")
    granted = _request(handle)
    holder = Holder.parse(os.pread(handle, _MAX_BYTES, 0))
    if granted is False:
        raise _in_use(folder, holder)
    if not _is_file(file, handle):
        return False
    if holder is not None and not holder.is_of_this_machine():
        raise InputError(
            f"{folder} is locked by {holder}, which can't be checked from {socket.gethostname()}. "
            f"If that process has ended, remove {file}."
        )
    if holder is not None and granted is None and holder.pid != os.getpid() and psutil.pid_exists(holder.pid):
        raise _in_use(folder, holder)
    if holder is not None:
        logger.info("%s: %s has ended without removing its lock, which is taken over", folder, holder)
    with writing(file):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(Holder.here())).encode(), 0)
    return True


def _request(handle: int) -> bool | None:
    """Return whether the kernel grants the lock; None if the file system has no locks."""
    try:
        # A record lock belongs to the process: workers that were forked do not keep it, as they would keep one of `flock`.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise _unusable(Path(LOCK), error.strerror or str(error)) from error


def _release(file: Path, handle: int) -> None:
    with suppress(OSError):
        if _is_file(file, handle):  # it is removed before it is unlocked, so that no other process locks the old one
            file.unlink()
    os.close(handle)


def _is_file(file: Path, handle: int) -> bool:
    """Return whether a path still is the file that was opened."""
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, holder: Holder | None) -> InputError:
    return InputError(
        f"{folder} is in use by {holder or 'another process'}, and one process at a time writes there. "
        "Wait until it ends, or choose another folder."
    )


def _unusable(file: Path, reason: str) -> InputError:
    return InputError(f"{file}: can't be locked: {reason}. Remove it if no process writes into its folder.")
