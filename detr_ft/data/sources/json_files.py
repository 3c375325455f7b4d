"""JSON annotation files: the tool that wrote a file, and the file of each split in a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from detr_ft.data.sources.listing import file_by_split, files_below, split_folders, split_of, split_of_path
from detr_ft.data.sources.parsing import encoding_of, parse_json, read_text
from detr_ft.data.sources.recognition import most_common
from detr_ft.errors import InputError

Tool = Literal["coco", "datumaro", "createml", "labelme", "labelstudio", "results", "supervisely", "via"]

_CHUNK_CHARS = 1 << 16
_MAX_FILES_COUNTED = 200
_OVERLAP_CHARS = 80  # of two chunks, for a key across their border
_TOOL_OF_KEY: dict[str, Tool] = {
    "images": "coco",
    "annotations": "coco",
    "shapes": "labelme",
    "imagePath": "labelme",
    "dm_format_version": "datumaro",
    "items": "datumaro",
    "_via_settings": "via",
    "_via_img_metadata": "via",
    "shape_attributes": "via",
    "file_attributes": "via",
    "classTitle": "supervisely",
    "classId": "supervisely",
}
_KEY = re.compile(rf'"({"|".join(_TOOL_OF_KEY)}|categories)"\s*:\s*(.?)', re.DOTALL)
_LIST_KEY = re.compile(r'"(?:(image_id|data|annotations|result|completions)"\s*:|(bbox)"\s*:\s*\[\s*[-\d])')
_CREATEML = re.compile(r'"coordinates"\s*:\s*\{')
# COCO's files that describe the images of `instances_*.json` of their split in another way, and those without objects.
_BESIDE_INSTANCES = ("person_keypoints", "panoptic", "stuff")
_WITHOUT_OBJECTS = ("captions", "image_info")


def json_tool(file: Path) -> Tool | None:
    """Return the tool that wrote a file, by the first key of any tool; None for other files.

    A list is an export of Label Studio or of Apple's Create ML, or has detections (COCO's results).
    """
    before, is_list = "", False
    for chunk in _chunks(file):
        text = before + chunk
        is_list = is_list or (not before and text.lstrip().startswith("["))
        if is_list:
            first = _LIST_KEY.search(text)
            if first and (first[1] == "image_id" or first[2]):
                return "results"
            return "createml" if _CREATEML.search(text) else "labelstudio"
        key = _KEY.search(text)
        if key:
            # COCO's categories are a list, Datumaro's a mapping.
            of_categories: Tool = "datumaro" if key[2] == "{" else "coco"
            return _TOOL_OF_KEY.get(key[1], of_categories)
        before = text[-_OVERLAP_CHARS:]
    return None


def json_tool_of(path: Path) -> str | None:
    """Return the tool that wrote a `.json` file, or most JSON files of a folder, else None.

    Lists of detections in a folder are the output of a model, and don't count.
    """
    if path.is_file():
        return json_tool(path) or "coco" if path.suffix.lower() == ".json" else None
    return most_common(files_below(path, {".json"}), _tool_of_annotations)


def _tool_of_annotations(file: Path) -> Tool | None:
    tool = json_tool(file)
    return None if tool == "results" else tool


def files_of_tool(files: Iterable[Path], tool: Tool) -> list[Path]:
    """Return the files that a tool wrote and those that are not valid JSON, which fail when read."""
    kinds = {file: json_tool(file) for file in files}
    of_tool = [file for file, kind in kinds.items() if kind == tool or (kind is None and _is_damaged(file))]
    return of_tool or [file for file in kinds if _is_damaged(file)]


def _is_damaged(file: Path) -> bool:
    try:
        parse_json(read_text(file))
    except (InputError, ValueError):
        return True
    return False


def json_instead(folder: Path) -> str:
    """Return a sentence on the JSON files of a folder and the tools that wrote them, empty without any."""
    files = files_below(folder, {".json"}) if folder.is_dir() else []
    counts = Counter(json_tool(file) or "of no known tool" for file in files[:_MAX_FILES_COUNTED])
    kinds = ", ".join(f"{count} {tool}" for tool, count in counts.most_common())
    return f" Its JSON files: {kinds}, the first is {files[0]}." if files else ""


def json_by_split(folder: Path) -> dict[str, Path]:
    """Return the COCO file of each split of a folder; empty if there is none.

    The split of a file is that of its folder directly below, else the one in its name, else that of a folder above it. The
    only file without a split is train. Raises InputError for several files of one split, wherever they are.
    """
    named = {child: split for split, child in split_folders(folder)}
    files = files_below(folder, {".json"})
    words = {file: named.get(file.parent) or split_of(file.stem) or split_of_path(file, folder) for file in files}
    return file_by_split(((words[file], file) for file in _coco_files(words)), folder, "coco")


def _coco_files(words: Mapping[Path, str | None]) -> list[Path]:
    """Return the COCO files among JSON files with their split words, and damaged files with such a word.

    Files that describe the images of others in another way are left out. Without COCO files, those of no known tool are
    returned.
    """
    tools = {file: json_tool(file) for file in words}
    unknown = [file for file, tool in tools.items() if tool is None]
    coco = [file for file, tool in tools.items() if tool == "coco"]
    instances = {words[file] for file in coco if file.name.startswith("instances")}
    if instances:
        coco = [
            file
            for file in coco
            if not file.name.startswith(_WITHOUT_OBJECTS)
            and not (file.name.startswith(_BESIDE_INSTANCES) and words[file] in instances)
        ]
    return [*coco, *(file for file in unknown if words[file] and _is_damaged(file))] if coco else unknown


def _chunks(file: Path) -> Iterator[str]:
    try:
        with file.open("rb") as binary:
            encoding = encoding_of(binary.read(2))
        with file.open(encoding=encoding, errors="replace") as stream:
            while chunk := stream.read(_CHUNK_CHARS):
                yield chunk
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error
