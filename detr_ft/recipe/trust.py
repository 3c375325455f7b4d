"""The record of the code of a user's own runs: that of other runs needs the user's consent.

It is in the user's state folder, never in a run, which may come from elsewhere. It has a line for each run, as
JSON: its folder, and the SHA-256 of each file of code by its path.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from detr_ft.utils.components import code_files, module_names

logger = logging.getLogger(__name__)

CONSENT = "If you trust it, add --trust-code (in Python trust_code=True)"
_MAX_RECORD_BYTES = 2**20  # of a larger record the newer half stays
_Code = Mapping[str, str]


def code_of(description: object, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that building a description would run, by its path; nothing is run.

    A module without a source file, as a script, has its name and no SHA-256. Missing files are left out.
    """
    files = [file for file in code_files(description, folder) if _is_file(file)]
    modules = {name: list(_files_of_module(name)) for name in module_names(description)}
    files += [file for found in modules.values() for file in found]
    digests = {str(file.resolve()): _digest(file) for file in files}
    return digests | {name: "" for name, found in modules.items() if not found}


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # the name is too long
        return False


def _digest(file: Path) -> str:
    """Return the SHA-256 of a file, empty if it can't be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def record_run(run: Path, code: _Code) -> None:
    """Add the code of a run that is trained here to the record; log if that is impossible, and continue."""
    if not code:
        return
    entry = {"run": str(run.resolve()), "code": dict(code)}
    try:
        record = _record()
        entries = _entries(record)
        if entries is None:
            record.unlink()
        elif entry in entries:
            return
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with record.open("ab", buffering=0) as file:  # one write: other runs may be recorded at the same time
            file.write(json.dumps(entry).encode() + b"\n")
        if record.stat().st_size > _MAX_RECORD_BYTES:
            lines = record.read_bytes().splitlines(keepends=True)
            _replace(record, b"".join(lines[len(lines) // 2 :]))
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        logger.warning("the code of this run is not recorded as yours, so replay and demo need --trust-code: %s", error)


def unknown_code(place: Path, description: object, folder: Path) -> list[str]:
    """Return the code in a description that is not in the record for the run of a folder, as it is now.

    `place` is the run or inside it; files are relative to `folder`. Nothing is run.
    """
    code = code_of(description, folder)
    if not code:
        return []
    try:
        entries = _entries(_record()) or []
    except (OSError, RuntimeError) as error:
        logger.warning("the record of your runs can't be read: %s", error)
        entries = []
    runs = {str(parent) for parent in (place.resolve(), *place.resolve().parents)}
    known = {item for entry in entries if entry["run"] in runs for item in entry["code"].items()}
    return [name for name, digest in code.items() if (name, digest) not in known]


def _entries(record: Path) -> list[dict[str, Any]] | None:
    """Return the entries of the record; None for a damaged one, which is logged."""
    try:
        entries = [json.loads(line) for line in record.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except (ValueError, RecursionError):
        entries = [None]
    if not all(map(_is_entry, entries)):
        logger.warning("%s is damaged, so that no run counts as yours. Remove it, or train again", record)
        return None
    return entries


def _is_entry(entry: object) -> bool:
    if not (isinstance(entry, Mapping) and isinstance(entry.get("run"), str)):
        return False
    code = entry.get("code")
    return isinstance(code, Mapping) and all(isinstance(digest, str) for digest in code.values())


def _replace(record: Path, content: bytes) -> None:
    """Write the record, completely or not at all."""
    partial = record.with_name(f".{record.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(record)


def _record() -> Path:
    """Return the file of the record. Raises RuntimeError if there is no home folder."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):
        return Path(state) / "detr-ft/runs.jsonl"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "detr-ft/runs.jsonl"
    own = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
    return Path.home() / own / "detr-ft/runs.jsonl"


def _files_of_module(name: str) -> Iterator[Path]:
    """Yield the files that an import of a module would run, its packages first, without importing them."""
    path = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), path)
        if spec is None:
            return
        if spec.has_location and spec.origin:
            yield Path(spec.origin)
        if spec.submodule_search_locations is None:
            return
        path = list(spec.submodule_search_locations)
