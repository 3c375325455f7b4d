"""The files of a run that are uploaded: those of an allow-list, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from detr_ft.errors import InputError
from detr_ft.run_directory import (
    DETECTIONS_SUFFIX,
    EXAMPLES,
    EXPORT_METRICS,
    METRICS,
    ONNX,
    ONNX_8_BITS,
    RECIPE,
    REPORT,
    TORCH_EXPORT,
    WEIGHTS,
    RunDirectory,
)

_SHARD = WEIGHTS.replace(".", r"-\d{5}-of-\d{5}\.")
MODEL = re.compile(
    "|".join([*map(re.escape, ("config.json", "preprocessor_config.json", WEIGHTS, f"{WEIGHTS}.index.json")), _SHARD])
)
_RESULTS = ("README.md", RECIPE, METRICS, REPORT, EXPORT_METRICS, TORCH_EXPORT, ONNX, ONNX_8_BITS)
_ALLOWED = re.compile(
    "|".join([MODEL.pattern, *map(re.escape, _RESULTS), rf"{EXAMPLES}/\d+({DETECTIONS_SUFFIX})?\.jpg"])
)
_FOLDERS = (ONNX.partition("/")[0], EXAMPLES)
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
_BINARY = {".safetensors", ".onnx", ".pt2", ".jpg"}


def plan(run: Path) -> list[Path]:
    """Return the files of a run directory that a push uploads, sorted. Raises InputError.

    Only names of the allow-list, and the code that the recipe names. Links to files and folders are left out, since
    their targets may be outside the run.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such run directory. Give the folder that `detr-ft train` wrote.")
    folders = [run, *(run / name for name in _FOLDERS if (run / name).is_dir() and not (run / name).is_symlink())]
    allowed = [
        file
        for folder in folders
        for file in folder.iterdir()
        if _ALLOWED.fullmatch(file.relative_to(run).as_posix()) and file.is_file() and not file.is_symlink()
    ]
    files = sorted({*allowed, *RunDirectory(run).code_files()})
    names = {file.name for file in files}
    missing = [] if "config.json" in names else ["config.json"]
    if not any(name.endswith(".safetensors") for name in names):
        missing.append(WEIGHTS)
    if missing:
        raise InputError(
            f"{run}: no {' and no '.join(missing)} (as a plain file) in this folder. "
            "Give the folder that `detr-ft train` wrote."
        )
    return files


def check_secrets(files: Iterable[Path], token: str) -> None:
    """Raise InputError that names every text file with the token, another token or a private key."""
    problems = []
    for file in files:
        if file.suffix in _BINARY:
            continue
        content = file.read_bytes()
        if token.encode() in content or _SECRET.search(content):
            problems.append(
                f"{file}: contains a token or a key, so nothing was uploaded. Remove it from the file, and revoke it."
            )
    if problems:
        raise InputError(problems)
