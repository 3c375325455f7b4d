"""JSON files of annotations: which tool wrote one, and which one belongs to which split."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from detr_ft.data.schema import SPLITS
from detr_ft.data.sources.listing import files_in, split_folders, split_of
from detr_ft.errors import InputError

Tool = Literal["coco", "labelme", "labelstudio"]

_CHUNK = 1 << 16
_KEYS = re.compile(r'"(images|annotations|categories|shapes|imagePath)"\s*:')


def json_tool(file: Path) -> Tool:
    """The source that reads this file: a list is Label Studio's, a mapping LabelMe's if shapes come before images."""
    before = ""
    for chunk in _chunks(file):
        text = before + chunk
        if text.lstrip().startswith("[") and not before:
            return "labelstudio"
        key = _KEYS.search(text)
        if key:
            return "labelme" if key[1] in ("shapes", "imagePath") else "coco"
        before = text[-50:]
    return "coco"


def json_tool_of(path: Path) -> Tool | None:
    """The tool that wrote a `.json` file, or the first of the files of a folder's splits; None where there is none."""
    if path.is_file():
        return json_tool(path) if path.suffix.lower() == ".json" else None
    file = next(iter(json_by_split(path).values()), None)
    return None if file is None else json_tool(file)


def json_by_split(folder: Path) -> dict[str, Path]:
    """The file of each split below a folder, in the layouts of COCO that are known; empty if there is none."""
    found: dict[str, Path] = {}
    for split, child in split_folders(folder):
        _take(
            found,
            split,
            [f for f in files_in(child, {".json"}) if f.name.endswith("coco.json") or f.stem == "annotations"],
        )
    if found:
        return found
    for parent in (folder / "annotations", folder):
        files = files_in(parent, {".json"})
        instances = [f for f in files if f.name.startswith("instances")] or files
        for split in SPLITS:
            _take(found, split, [f for f in instances if split_of(f.stem) == split])
        if not found and len(instances) == 1:
            found["train"] = instances[0]
        if found:
            return found
    return found


def _take(found: dict[str, Path], split: str, files: list[Path]) -> None:
    files = [*([found[split]] if split in found else []), *files]
    if len(files) > 1:
        raise InputError(
            f"several COCO files for split {split}: {', '.join(map(str, files))}; name one of them outright"
        )
    if files:
        found[split] = files[0]


def _chunks(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error
