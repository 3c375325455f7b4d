"""Guards of files: only regular ones are read, none is overwritten, faults are InputErrors."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detr_ft.errors import InputError

LOCK = ".lock"  # in a folder that a process writes into; see `utils/lock.py`
_SPECIAL_FILES = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: str | Path) -> None:
    """Raise OSError for a pipe, a socket or a device, whose opening or reading may never end.

    Also raises the OSError of a missing file. A folder passes, because opening it fails at once.
    """
    kind = _SPECIAL_FILES.get(stat.S_IFMT(os.stat(path).st_mode))
    if kind is not None:
        raise OSError(f"{kind}, not a file")


def read_regular(path: Path) -> bytes:
    """Return the contents of a regular file. Raises OSError, also for a pipe, a socket or a device."""
    check_regular(path)
    return path.read_bytes()


def check_writable(path: Path) -> None:
    """Raise InputError if the permissions of a path, or of its nearest folder that exists, forbid writing."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if existing == path and path.is_file():
        existing = path.absolute().parent
    if not existing.is_dir():
        raise unwritable(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise unwritable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def check_new_file(file: Path, remedy: str = "Choose another name.") -> None:
    """Raise InputError if a path exists. `remedy` ends the message."""
    if file.exists():
        raise InputError(f"{file} exists and is not overwritten. {remedy}")
    check_writable(file)


def check_new_folder(folder: Path, remedy: str = "Choose a new folder.", ignored: Collection[str] = ()) -> None:
    """Raise InputError for a folder that is not empty, apart from its lock and `ignored`, or for a file.

    `remedy` ends the message.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: can't be written (it is a file). {remedy}")
    if folder.is_dir() and any(path.name not in {LOCK, *ignored} for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and is not overwritten. {remedy}")
    check_writable(folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError raised inside into the InputError of a path that can't be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> InputError:
    """Return the error of a path that can't be written."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"{path}: can't be written ({why}). Choose another path, or make room there.")


def read_json(file: Path, remedy: str) -> Any:
    """Return the content of a JSON file. Raises InputError, with `remedy`, if it can't be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error.strerror or error}). {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}). {remedy}") from error
