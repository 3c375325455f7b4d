"""Read KITTI: `label_2/*.txt` with a row for each object, and images of the same names in `image_2/`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder, folder_of_images
from detr_ft.data.sources.listing import files_below, files_in, name_splits, split_of_folder, split_of_path
from detr_ft.data.sources.parsing import parse_number, read_lines
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Flags, Record
from detr_ft.errors import InputError

_NUM_VALUES = 14  # after the type: truncated, occluded, alpha, 4 of the box, 3 of size, 3 of position, rotation
_NO_OBJECT = "DontCare"
_LABEL_FOLDERS = ("label_2", "label_02")
_IMAGE_FOLDERS = ("image_2", "image_02", "images", "image_3")
_LISTS = "ImageSets"
_MAX_CHARS_SHOWN = 80
_SAMPLE_FILES = 20

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a folder has a folder of label files of KITTI."""
    return path.is_dir() and bool(_label_files(path))


def read(folder: Path, options: ReadOptions) -> SourceData:
    """Read the labels below a folder; classes are sorted by name.

    Boxes are read from left, top, right and bottom, as written. Regions of the type DontCare are left out and counted.
    Splits are the lists in `ImageSets/`, else the folders of the label files that are named after a split.
    """
    files = _label_files(folder) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder}: no label files of KITTI, expected training/label_2/*.txt and training/image_2/")
    problems: list[Problem] = []
    by_split, split_by = _splits(files, folder, problems)
    reader = _Reader(folder, options.images)
    splits = {split: [reader.read(file, index) for index, file in enumerate(some)] for split, some in by_split.items()}
    raise_all(reader.finder.all_missing(folder))
    reader.finder.log_substitutes(folder)
    if reader.num_ignored:
        log.info("%s: %d regions of the type %s are left out", folder, reader.num_ignored, _NO_OBJECT)
    used = {file for some in by_split.values() for file in some}
    annotated = [image for file in files if file not in used and (image := reader.image_of(file))]
    names = sorted(used_names(splits) - {""})
    return to_source_data(splits, names, folder, problems, split_by=split_by, annotated=annotated)


def _label_files(folder: Path) -> list[Path]:
    """Return the text files in folders that are named `label_2` or contain label files of KITTI."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files_below(folder, {".txt"}):
        by_folder.setdefault(file.parent, []).append(file)
    return [
        file
        for parent, files in by_folder.items()
        if parent.name in _LABEL_FOLDERS or any(map(_is_label_file, files[:: max(1, len(files) // _SAMPLE_FILES)]))
        for file in files
    ]


def _is_label_file(file: Path) -> bool:
    """Return whether the first row of a file is an object: a type and 14 numbers, or 15 with a score."""
    try:
        with file.open("rb") as lines:
            words = lines.readline().decode("utf-8", errors="replace").split()
    except OSError:
        return False
    return _values(words) is not None


def _values(words: Sequence[str]) -> tuple[str, list[float]] | None:
    """Return the type and the numbers of a row, None for another row. A type may have spaces."""
    numbers = [parse_number(word) for word in words]
    for count in (_NUM_VALUES + 1, _NUM_VALUES):  # with and without a score
        values = [number for number in numbers[-count:] if number is not None]
        if len(words) > count and len(values) == count and parse_number(words[-count - 1]) is None:
            return " ".join(words[:-count]), values
    return None


def _splits(files: Sequence[Path], root: Path, problems: list[Problem]) -> tuple[dict[str, list[Path]], str | None]:
    """Return the label files of each split and what decides on it."""
    lists = _lists(files, root)
    if lists:
        listed = _listed(files, lists, problems)
        if listed:
            return listed, f"the lists in {_LISTS}"
    of_folders = [split_of_path(file, root) for file in files]
    if not name_splits(of_folders):
        return {"train": list(files)}, None
    splits: dict[str, list[Path]] = {}
    for split, file in zip(of_folders, files, strict=True):
        splits.setdefault(split or "train", []).append(file)
    return splits, "the folders of the label files"


def _lists(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Return the lists of each split in the first `ImageSets/` at the root or above the label files."""
    folders = dict.fromkeys(
        [
            root,
            *(parent for file in files for parent in file.parents if parent.is_relative_to(root)),
            root.absolute().parent,
        ]
    )
    lists = next(filter(None, (files_in(folder / _LISTS, {".txt"}) for folder in folders)), [])
    words = {file.stem.lower() for file in lists}
    by_split: dict[str, list[Path]] = {}
    for file in lists:
        split = split_of_folder(Path(file.stem))
        # `trainval` repeats the other lists if they exist.
        if split and not (file.stem.lower() == "trainval" and "train" in words):
            by_split.setdefault(split, []).append(file)
    return by_split


def _listed(
    files: Sequence[Path], lists: Mapping[str, Sequence[Path]], problems: list[Problem]
) -> dict[str, list[Path]]:
    """Return the label files in the lists of each split; files in no list are added to `problems`."""
    by_stem = {file.stem: file for file in files}
    splits: dict[str, list[Path]] = {}
    for split, some in lists.items():
        for file in some:
            names = dict.fromkeys(_stem(line) for line in read_lines(file) if line.strip())
            inside = [by_stem[name] for name in names if name in by_stem]
            splits.setdefault(split, []).extend(inside)
            if len(inside) < len(names):
                log.warning("%s: %d of its images have no labels and are left out", file, len(names) - len(inside))
    splits = {split: list(dict.fromkeys(inside)) for split, inside in splits.items() if inside}
    used = {file for inside in splits.values() for file in inside}
    unused = [file for file in files if file not in used]
    if splits and unused:
        message = (
            f"{unused[0]}: {len(unused)} label files are in no list of {_LISTS} and are left out, this is the first"
        )
        problems.append(Problem("lost annotation", message, count=len(unused)))
    return splits


def _stem(line: str) -> str:
    """Return the name in a line of a list, which may have folders and a suffix."""
    name = PurePosixPath(line.strip().replace("\\", "/"))
    return name.stem if name.suffix.lower() in (*IMAGE_SUFFIXES, ".txt") else name.name


@dataclass
class _Reader:
    """Converts label files to records."""

    folder: Path
    images: Path | None
    num_ignored: int = 0

    def __post_init__(self) -> None:
        self.finder = ImageFinder(folder_of_images(self.folder), images=self.images)

    def read(self, file: Path, image_id: int) -> Record:
        """Return the record of a label file's image."""
        messages: list[str] = []
        record = Record.with_size(self._image(file, messages), image_id)
        record.unreadable += messages
        try:
            lines = read_lines(file)
        except InputError as error:
            record.unreadable += error.problems
            return record
        for words, where in _rows(lines, file):
            self._add(record, words, where)
        return record

    def image_of(self, file: Path) -> Path | None:
        """Return the image of a label file, None without one."""
        return self.finder.find_in([file.stem], self._folders(file)) or self.finder.locate(file.stem, str(file), [])

    def _folders(self, file: Path) -> list[Path]:
        parents = [file.parent.parent.absolute() / name for name in _IMAGE_FOLDERS]
        return [self.finder.root] if self.images else [*parents, file.parent.absolute()]

    def _image(self, file: Path, messages: list[str]) -> Path:
        """Return the image of a label file: in the folders beside its folder, else below the root."""
        folders = self._folders(file)
        path = self.finder.find_in([file.stem], folders)
        if path:
            self.finder.note_found()
            return path
        folder = next(filter(self.finder.has_images, folders), None)
        if folder:
            self.finder.note_missing(file.stem)
            return folder / f"{file.stem}.png"
        return self.finder.find(file.stem, str(file), messages)

    def _add(self, record: Record, words: list[str], where: str) -> None:
        row = _values(words)
        if row is None:
            got = " ".join(words)[:_MAX_CHARS_SHOWN]
            record.unreadable.append(f"{where}: must be a type and {_NUM_VALUES} numbers, got {got!r}")
            return
        name, (truncated, _, _, left, top, right, bottom, *_) = row
        if name == _NO_OBJECT:
            self.num_ignored += 1
            return
        record.add([left, top, right - left, bottom - top], name, flags=Flags(truncated=truncated > 0))


def _rows(lines: Sequence[str], file: Path) -> Iterator[tuple[list[str], str]]:
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words:
            yield words, f"{file}, line {number}"
