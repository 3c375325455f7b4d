"""Files and folders of a data set, and the splits in their names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from detr_ft.data.images import IMAGE_SUFFIXES, open_image
from detr_ft.errors import InputError

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_of(word: str) -> str | None:
    """Return the split in a word such as `valid` or `instances_val2017`, None if there is none."""
    parts = re.split(r"[^a-z]+", word.lower())
    return next((_SPLIT_WORDS[part] for part in parts if part in _SPLIT_WORDS), None)


def split_of_file(file: Path) -> str:
    """Return the split in the name of a file, else the split that its folder is named after, else train."""
    return split_of(file.stem) or split_of_folder(file.parent) or "train"


def split_of_folder(folder: Path) -> str | None:
    """Return the split that a folder is named after. A word in a longer name does not count."""
    return _SPLIT_WORDS.get(folder.name.lower())


def split_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the subfolders that are named after a split, with that split."""
    for child in sorted(folder.iterdir()):
        split = split_of_folder(child)
        if split and child.is_dir():
            yield split, child


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted; hidden files are left out."""
    return [path for path in files_in(folder, IMAGE_SUFFIXES) if not _is_hidden(path)]


def images_below(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted; hidden files are left out."""
    return [path for path in files_below(folder, IMAGE_SUFFIXES) if not _is_hidden(path)]


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder with suffixes such as `.json`, in any case, sorted."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return []
    return sorted(folder / name for name in names if _has_suffix(name, suffixes))


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder and its subfolders with these suffixes, sorted.

    Linked folders are not followed.
    """
    files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in files if _has_suffix(path.name, suffixes))


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return Path(name).suffix.lower() in suffixes


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def image_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the images among files and in folders.

    Raises InputError with every path that does not exist, folder without images and file that can't be opened.
    """
    files: list[Path] = []
    problems = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = images_in(path)
            files += inside
            if not inside:
                problems.append(f"{path}: this folder has no images")
        elif path.is_file():
            files.append(path)
        else:
            problems.append(f"{path}: no such file or folder")
    for file in files:
        try:
            open_image(file)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return files
