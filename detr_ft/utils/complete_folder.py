"""Folders that are complete or absent, even if their writer is killed, with digests of their files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DIGESTS = "complete.json"  # name and SHA-256 of every other file; written last
_PARTIAL, _REPLACED = ".partial-", ".replaced-"  # before the name of a folder


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield an empty folder for files, which after the context takes the place of `target`.

    The files reach the disk before the folder gets its name. An exception leaves the earlier folder.
    """
    partial = target.with_name(f"{_PARTIAL}{target.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        _seal(partial)
        if target.exists():  # only two renames separate the old folder from the new one
            target.rename(_empty(target.with_name(f"{_REPLACED}{target.name}")))
        partial.rename(target)
        _flush(target.parent)
    finally:
        clean_up(target.parent)


def clean_up(parent: Path) -> None:
    """Remove the incomplete folders of a killed process; one that it was replacing gets its name back."""
    for replaced in parent.glob(f"{_REPLACED}*"):
        target = parent / replaced.name.removeprefix(_REPLACED)
        if not target.exists():
            replaced.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    for partial in parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)


def fault_of(folder: Path) -> str | None:
    """Return which file of a folder is missing or changed after it was written; None if there is none."""
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())
        for name, expected in digests.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if digest_of(folder / name) != expected:
                return f"{name} changed after it was written"
    except FileNotFoundError:
        return f"{DIGESTS} is missing"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return f"{DIGESTS} or a file in it can't be read: {error}"
    return None


def _empty(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def _seal(folder: Path) -> None:
    """Flush the files of a folder to the disk, and write their digests."""
    digests = {}
    for file in sorted(folder.iterdir()):
        digests[file.name] = digest_of(file)
        _flush_file(file)
    (folder / DIGESTS).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    _flush_file(folder / DIGESTS)
    _flush(folder)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _flush_file(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _flush(folder: Path) -> None:
    """Flush the names in a folder to the disk; Windows has no call for it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
