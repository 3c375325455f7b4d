"""Annotation files of other formats beside those of a data set, which are not read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from datasets import Dataset

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.json_files import json_tool
from detr_ft.data.sources.listing import files_below
from detr_ft.data.sources.parsing import encoding_of
from detr_ft.data.sources.problems import Problem
from detr_ft.data.sources.recognition import xml_root
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError

_SOURCE_OF_XML = {"annotation": "voc", "annotations": "cvat"}
_OF_ONE_IMAGE = ("voc", "labelme", "supervisely")  # formats with a file for each image, of its name
_NO_ANNOTATIONS = ("results",)
_IMAGE_NAME = re.compile(
    rf"""([^"'<>/\\]+)(?:{"|".join(map(re.escape, sorted(IMAGE_SUFFIXES)))})(?=["'<?])""", re.IGNORECASE
)
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts it before the names of uploaded files
_ANNOTATIONS_OF_TASKS = re.compile(r'"(annotations|completions|result)"\s*:')

_Files = dict[Path, set[str]]  # names of images, without suffix, that only this file annotates


def with_other_formats(data: SourceData, path: Path, source: str, policy: UnlabeledPolicy | None) -> SourceData:
    """Return the data with a problem for each format whose files annotate other images.

    An image that only such a file annotates is refused if it would be read as an image without objects. Raises InputError
    if `policy` would add such images.
    """
    others = _other_files(data, path, source) if path.is_dir() else {}
    if not others:
        return data
    problems = [_problem(path, source, kind, files) for kind, files in others.items()]
    if policy == "background":
        raise InputError(
            [
                *(problem.message for problem in problems),
                f"{path}: unlabeled is background, and images of these files would be read as images without objects. "
                "Move them to a folder of their own",
            ]
        )
    owners = {name: file for files in others.values() for file, names in files.items() for name in names}
    for split, rows in data.unlabeled.items():
        paths = _paths(data.splits[split])
        for row in rows:
            file = owners.get(paths[row].stem)
            if file is not None and policy is None:
                message = f"{paths[row]}: has no labels of {source}, but {file} annotates it"
                problems.append(Problem("missing label", message, "annotated in another format", split, row))
    return replace(data, problems=(*data.problems, *problems))


def _problem(path: Path, source: str, kind: str, files: _Files) -> Problem:
    first = min(files)
    message = (
        f"{path}: the data are read as {source}, and {len(files)} files of {kind} are not read, for example {first}. "
        f"Convert them, or read them by themselves: {kind}:{path if kind in _OF_ONE_IMAGE else first}"
    )
    return Problem("lost annotation", message, f"files of {kind}", count=len(files))


def _other_files(data: SourceData, folder: Path, source: str) -> dict[str, _Files]:
    """Return the files of each other format that annotate images without labels in the data."""
    unlabeled = {split: set(rows) for split, rows in data.unlabeled.items()}
    labeled = {
        path.stem
        for split, rows in data.splits.items()
        for row, path in enumerate(_paths(rows))
        if row not in unlabeled.get(split, ())
    }
    reported = {problem.message.partition(": ")[0] for problem in data.problems}
    others: dict[str, _Files] = {}
    for file in files_below(folder, {".json", ".xml"}):
        own_names = {file.stem, Path(file.stem).stem}  # Supervisely writes a.jpg.json
        if str(file) in reported or not own_names.isdisjoint(labeled):
            continue
        kind = _SOURCE_OF_XML.get(xml_root(file) or "") if file.suffix.lower() == ".xml" else json_tool(file)
        if kind is None or kind == source or kind in _NO_ANNOTATIONS:
            continue
        names = own_names if kind in _OF_ONE_IMAGE else set(_names_in(file, kind, labeled))
        if names:
            others.setdefault(kind, {})[file] = names
    return others


def _names_in(file: Path, kind: str, labeled: Collection[str]) -> Iterator[str]:
    """Yield the names of images in an annotation file that are not labeled, without suffix."""
    content = file.read_bytes()
    text = content.decode(encoding_of(content), errors="replace")
    if kind == "labelstudio" and not _ANNOTATIONS_OF_TASKS.search(text):
        return
    for match in _IMAGE_NAME.finditer(text):
        name = match[1]
        if name not in labeled and _UPLOAD_PREFIX.sub("", name, count=1) not in labeled:
            yield name


def _paths(rows: Dataset) -> list[Path]:
    images = (row["image"] for row in rows.with_format(None).select_columns(["image"]))
    return [Path(str(image["path"] or "")) for image in images]
