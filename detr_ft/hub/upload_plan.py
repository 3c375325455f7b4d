"""The files of a run that are uploaded: those of an allow-list with the content that the run wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detr_ft.errors import InputError
from detr_ft.run_directory import (
    CARD,
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
from detr_ft.utils.complete_folder import digest_of

_SHARD = WEIGHTS.replace(".", r"-\d{5}-of-\d{5}\.")
MODEL = re.compile(
    "|".join([*map(re.escape, ("config.json", "preprocessor_config.json", WEIGHTS, f"{WEIGHTS}.index.json")), _SHARD])
)
_RESULTS = (CARD, RECIPE, METRICS, REPORT, EXPORT_METRICS, TORCH_EXPORT, ONNX, ONNX_8_BITS)
_ALLOWED = re.compile(
    "|".join([MODEL.pattern, *map(re.escape, _RESULTS), rf"{EXAMPLES}/\d+({DETECTIONS_SUFFIX})?\.jpg"])
)
_FOLDERS = (ONNX.partition("/")[0], EXAMPLES)


@dataclass(frozen=True)
class UploadPlan:
    """The files of a run that a push uploads, sorted, without a card that is yet to be written.

    `edited` are those of them with other content than the run wrote: card and code that the user edited, and files that the
    user included. `has_record` is False for a run of an earlier version, whose files can't be compared.
    """

    run: Path
    files: tuple[Path, ...]
    edited: tuple[Path, ...] = ()
    code: tuple[Path, ...] = ()
    has_record: bool = True

    @property
    def needs_card(self) -> bool:
        """True if the run has no card, so that the push writes one."""
        return self.run / CARD not in self.files

    def names(self) -> list[str]:
        """Return the names in the repository, in order, with that of the card."""
        names = [file.relative_to(self.run).as_posix() for file in self.files]
        return sorted([*names, CARD]) if self.needs_card else names


def plan(run: Path, include: Sequence[str] = ()) -> UploadPlan:
    """Return the files of a run directory that a push uploads.

    Only names of the allow-list, and the code that the recipe names. Links to files and folders are left out, since
    their targets may be outside the run. Raises InputError for files that the run did not write or that were changed since,
    unless `include` has their names; card and code may be edited.
    """
    files = _allowed_files(run)
    directory = RunDirectory(run)
    code, recorded = tuple(directory.code_files()), directory.recorded()
    names = {file.relative_to(run).as_posix(): file for file in files}
    included = {PurePosixPath(name).as_posix() for name in include}
    problems = [
        f"include (--include) {name}: is no file that a push of {run} uploads. It uploads {', '.join(names)}"
        for name in sorted(included - names.keys())
    ]
    edited = []
    for name, file in names.items() if recorded is not None else ():
        written = (recorded or {}).get(name)
        if written == digest_of(file):
            continue
        edited.append(file)
        if name in included or (written is not None and (name == CARD or file in code)):
            continue
        what = "was not written by this run" if written is None else "was changed after the run wrote it"
        remedy = "Remove it" if written is None else "Restore it"
        problems.append(f"{file}: {what}, so nothing was uploaded. {remedy}, or upload it with --include {name}")
    if problems:
        raise InputError(problems)
    return UploadPlan(run, tuple(files), tuple(edited), code, recorded is not None)


def _allowed_files(run: Path) -> list[Path]:
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
