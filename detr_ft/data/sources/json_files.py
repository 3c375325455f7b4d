"""JSON annotation files: the tool that wrote a file, and the file of each split in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from detr_ft.data.schema import SPLITS
from detr_ft.data.sources.listing import files_in, split_folders, split_of
from detr_ft.errors import InputError

Tool = Literal["coco", "labelme", "labelstudio"]

_CHUNK_CHARS = 1 << 16
_OVERLAP_CHARS = 50  # of two chunks, for a key across their border
_KEYS = re.compile(r'"(images|annotations|categories|shapes|imagePath)"\s*:')


def json_tool(file: Path) -> Tool:
    """Return the tool that wrote a file, by its beginning.

    A list is an export of Label Studio. A mapping is LabelMe's if one of LabelMe's keys is the first key of either
    tool.
    """
    before = ""
    for chunk in _chunks(file):
        text = before + chunk
        if text.lstrip().startswith("[") and not before:
            return "labelstudio"
        key = _KEYS.search(text)
        if key:
            return "labelme" if key[1] in ("shapes", "imagePath") else "coco"
        before = text[-_OVERLAP_CHARS:]
    return "coco"


def json_tool_of(path: Path) -> Tool | None:
    """Return the tool that wrote a `.json` file, or the first file of a folder's splits, else None."""
    if path.is_file():
        return json_tool(path) if path.suffix.lower() == ".json" else None
    file = next(iter(json_by_split(path).values()), None)
    return None if file is None else json_tool(file)


def json_by_split(folder: Path) -> dict[str, Path]:
    """Return the file of each split in the known layouts of COCO folders; empty if there is none."""
    files: dict[str, Path] = {}
    for split, child in split_folders(folder):
        inside = files_in(child, {".json"})
        _add(files, split, [file for file in inside if file.name.endswith("coco.json") or file.stem == "annotations"])
    if files:
        return files
    for parent in (folder / "annotations", folder):
        inside = files_in(parent, {".json"})
        instances = [file for file in inside if file.name.startswith("instances")] or inside
        for split in SPLITS:
            _add(files, split, [file for file in instances if split_of(file.stem) == split])
        if not files and len(instances) == 1:
            files["train"] = instances[0]
        if files:
            return files
    return files


def _add(files: dict[str, Path], split: str, candidates: list[Path]) -> None:
    candidates = [*([files[split]] if split in files else []), *candidates]
    if len(candidates) > 1:
        raise InputError(
            f"several COCO files for split {split}: {', '.join(map(str, candidates))}. Name one of them, as in coco:FILE"
        )
    if candidates:
        files[split] = candidates[0]


def _chunks(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            while chunk := stream.read(_CHUNK_CHARS):
                yield chunk
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error
