"""The error of data that no source recognizes: what was looked for, what is there, and what to do."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.json_files import json_tool
from detr_ft.data.sources.listing import folders_in, images_below, is_skipped, split_of_path
from detr_ft.data.sources.parsing import read_lines
from detr_ft.data.sources.registry import SOURCES, Source
from detr_ft.data.sources.yolo_labels import is_label_file
from detr_ft.errors import InputError

Recognize = Callable[[Path], Source | None]

_ARCHIVES = frozenset({".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"})
_TFRECORDS = re.compile(r"\.(tfrecords?|record)(-\d+-of-\d+)?$", re.IGNORECASE)
_SUFFIX = re.compile(r"\.[A-Za-z0-9_]+")
_CLASS_FILES = ("classes.txt", "labels.txt", "obj.names")
_MAX_FILES = 20_000
_MAX_SUBFOLDERS, _MAX_LEVELS = 50, 2
_MAX_SHOWN = 3
_MAX_CLASSES_SHOWN = 20

_NAME_IT = "If the format is one of these, name it, as in coco:PATH"
_EXPORT_CREATEML = "Create ML's JSON is not read. Export the data as COCO JSON or Pascal VOC"
_EXPORT_TFRECORDS = "TFRecord files are not read. Export the data as COCO JSON, and give that folder"


def unrecognized(path: Path, recognize: Recognize) -> InputError:
    """Return the error of a file or folder that no source recognizes.

    `recognize` is called for its subfolders.
    """
    if path.is_file():
        there, remedy = _of_file(path)
    else:
        contents = _Contents.of_folder(path)
        there, remedy = contents.description, _of_folder(path, contents, recognize)
    names = ", ".join(source.name for source in SOURCES if source.follows == "PATH" and not source.streamed)
    return InputError(f"{path}: format not recognized: {there}, and none of the formats {names}. {remedy}")


def _of_file(file: Path) -> tuple[str, str]:
    """Return what a file is, and what to do."""
    suffix = file.suffix.lower()
    if not file.stat().st_size:
        return "the file is empty", f"Give the file or folder of the annotations. {_NAME_IT}"
    if suffix in _ARCHIVES:
        return "it is an archive", "Unpack it, and give the folder"
    if _TFRECORDS.search(file.name):
        return "it is a TFRecord file", _EXPORT_TFRECORDS
    if suffix in IMAGE_SUFFIXES:
        return "it is an image", "Give the file or folder of its annotations"
    if suffix == ".json" and json_tool(file) == "createml":
        return "it is Create ML's JSON", _EXPORT_CREATEML
    if suffix == ".json" and json_tool(file) == "results":
        return "it is a list of detections, without images and classes", "Give the file of the annotations"
    if suffix == ".txt" and is_label_file(file):
        return "it is a label file of YOLO", "Give the folder with data.yaml or classes.txt"
    kind = f"a {suffix} file" if suffix else "a file without suffix"
    return f"it is {kind}", f"Give the file or folder of the annotations. {_NAME_IT}"


def _of_folder(folder: Path, contents: _Contents, recognize: Recognize) -> str:
    """Return what to do about a folder."""
    inside = _recognized_below(folder, recognize)
    if inside:
        return _subfolders(inside, folder)
    texts = contents.with_suffix(".txt")
    labels = [file for file in texts if file.name not in _CLASS_FILES and is_label_file(file)]
    if labels:
        return _yolo_without_names(folder, contents, labels)
    if any(_TFRECORDS.search(file.name) for file in contents.files):
        return _EXPORT_TFRECORDS
    archives = contents.with_suffix(*_ARCHIVES)
    if archives:
        return f"Unpack {archives[0]}, and give the folder"
    if any(json_tool(file) == "createml" for file in contents.with_suffix(".json")[:_MAX_SHOWN]):
        return _EXPORT_CREATEML
    results = [file for file in contents.with_suffix(".json") if json_tool(file) == "results"]
    if results:
        return f"{results[0]} is a list of detections: give the file of the annotations, and --images {folder}"
    if contents.with_suffix(*IMAGE_SUFFIXES):
        return (
            "Annotations of the images are missing: if they are elsewhere, give their path, and the images with "
            f"--images {folder}. {_NAME_IT}"
        )
    return f"Give the file or folder of the annotations. {_NAME_IT}"


def _subfolders(inside: dict[Path, str], folder: Path) -> str:
    """Return what to do if subfolders are recognized."""
    first, kind = next(iter(inside.items()))
    if len(inside) == 1:
        elsewhere = f" --images {folder}" if not images_below(first) and images_below(folder) else ""
        return f"{first} is recognized as {kind}: give {kind}:{first}{elsewhere}"
    listed = [f"{path} as {name}" for path, name in list(inside.items())[:_MAX_SHOWN]]
    more = f" and {len(inside) - _MAX_SHOWN} more" if len(inside) > _MAX_SHOWN else ""
    return (
        f"{len(inside)} folders in it are recognized, {', '.join(listed)}{more}: give one of them, as in {kind}:{first}"
    )


def _recognized_below(folder: Path, recognize: Recognize) -> dict[Path, str]:
    """Return the recognized folders on the next levels, with the names of their sources."""
    inside: dict[Path, str] = {}
    level, left = folders_in(folder), _MAX_SUBFOLDERS
    for _ in range(_MAX_LEVELS):
        deeper: list[Path] = []
        for child in level[:left]:
            try:
                source = recognize(child)
            except InputError:
                source = None
            if source is None:
                deeper += folders_in(child)
            else:
                inside[child] = source.name
        left = max(0, left - len(level))
        level = deeper
    return inside


def _yolo_without_names(folder: Path, contents: _Contents, labels: list[Path]) -> str:
    """Return what to do about label files without class names, with the `data.yaml` to write."""
    file = next((file for file in contents.with_suffix(".txt", ".names") if file.name in _CLASS_FILES), None)
    names = [line.strip() for line in read_lines(file) if line.strip()] if file else []
    names = names or [f"name of class {number}" for number in range(_num_classes(labels))]
    parents = dict.fromkeys(image.parent for image in contents.files if image.suffix.lower() in IMAGE_SUFFIXES)
    by_split = {split_of_path(parent / "image", folder): parent for parent in parents}
    train = by_split.get("train") or by_split.get(None) or next(iter(parents), folder)
    val = by_split.get("validation")
    lines = [f"train: {_relative(train, folder)}", f"val: {_relative(val, folder)}"] if val else []
    lines = lines or ["path: .", f"train: {_relative(train, folder)}"]
    listed = ", ".join(map(_plain, names[:_MAX_CLASSES_SHOWN]))
    return (
        f"There are {len(labels)} label files of YOLO (for example {labels[0]}) and no data.yaml with the names of the "
        f"classes: write {folder / 'data.yaml'} with the lines\n"
        + "\n".join(f"  {line}" for line in [*lines, f"names: [{listed}]"])
    )


def _relative(path: Path, folder: Path) -> str:
    return _plain(os.path.relpath(path, folder))


def _plain(text: str) -> str:
    """Return a text for YAML, in quotes if it needs them."""
    return text if re.fullmatch(r"[\w./-][\w ./-]*", text) else json.dumps(text, ensure_ascii=False)


def _num_classes(labels: list[Path]) -> int:
    """Return one more than the largest class number in label files, at most the number shown."""
    first_words = (line.split()[0] for file in labels for line in file.read_bytes().splitlines() if line.split())
    numbers = [int(word) for word in first_words if word.isdigit() and len(word) < 6]
    return min(_MAX_CLASSES_SHOWN, max(numbers, default=0) + 1)


@dataclass(frozen=True)
class _Contents:
    """The files below a folder, at most a number of them."""

    folder: Path
    files: list[Path]

    @classmethod
    def of_folder(cls, folder: Path) -> _Contents:
        """List a folder and its subfolders."""
        files: list[Path] = []
        for file in _walk(folder):
            files.append(file)
            if len(files) == _MAX_FILES:
                break
        return cls(folder, files)

    @property
    def description(self) -> str:
        """The numbers of files by their suffixes, and an example that is no image."""
        if not self.files:
            return "the folder is empty"
        counts = Counter(_suffix(file) for file in self.files).most_common()
        shown = [f"{count} {suffix}" for suffix, count in counts[:_MAX_SHOWN]]
        rest = sum(count for _, count in counts[_MAX_SHOWN:])
        shown += [f"{rest} other"] if rest else []
        others = [file for file in self.files if file.suffix.lower() not in IMAGE_SUFFIXES]
        example = (others or self.files)[0].relative_to(self.folder)
        listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
        first = "the first of " if len(self.files) == _MAX_FILES else ""
        return f"it has {first}{listed} files, for example {example}"

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Return the files with one of these suffixes, in any case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]


def _suffix(file: Path) -> str:
    match = _SUFFIX.match(file.suffix.lower())
    return match[0] if match else "suffixless"


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_skipped(name))
        yield from (Path(parent, name) for name in sorted(names) if not is_skipped(name))
