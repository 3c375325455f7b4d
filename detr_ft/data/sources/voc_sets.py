"""The lists of Pascal VOC's splits: `ImageSets/Main/train.txt`, in a folder or in several below it."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from detr_ft.data.sources.image_finder import FolderIndex
from detr_ft.data.sources.listing import files_below, files_in, split_of
from detr_ft.data.sources.parsing import read_lines
from detr_ft.data.sources.problems import Problem

SETS = Path("ImageSets", "Main")
_SET_WORDS = ("train", "trainval", "val", "valid", "validation", "test")


def listed_files(folder: Path, problems: list[Problem]) -> dict[str, list[Path]] | None:
    """Return the XML files in the lists of each split, in a folder and those below; None without lists.

    Listed images without XML files are added to `problems`.
    """
    listed = _listed_beside(folder)
    for root in _roots(folder):
        for split, lists in _image_sets(root / SETS).items():
            listed.setdefault(split, []).extend(_listed_files(root, lists, problems))
    return listed or None


def _listed_beside(folder: Path) -> dict[str, list[Path]]:
    """Return the files in lists such as `train.txt` in the folder, whose lines end with a path of XML."""
    listed: dict[str, list[Path]] = {}
    for file in files_in(folder, {".txt"}):
        split = split_of(file.stem) if file.stem.lower() in _SET_WORDS else None
        words = [line.split()[-1] for line in read_lines(file) if line.strip()] if split else []
        paths = [folder / word.replace("\\", "/") for word in words if word.lower().endswith(".xml")]
        existing = [path for path in paths if os.path.isfile(path)]
        if split and existing:
            listed.setdefault(split, []).extend(existing)
    return listed


def _roots(folder: Path) -> list[Path]:
    """Return the folders with lists: this one, and those below, as VOC2007 and VOC2012 in VOCdevkit."""
    parents = {file.parent for file in files_below(folder, {".txt"}) if file.parent.parts[-2:] == SETS.parts}
    below = sorted(parent.parent.parent for parent in parents)
    return list(dict.fromkeys([*([folder] if (folder / SETS).is_dir() else []), *below]))


def _image_sets(folder: Path) -> dict[str, list[Path]]:
    """Return the lists of each split: `train.txt`, else those of all classes (`dog_train.txt`)."""
    lists: dict[str, list[Path]] = {}
    of_classes: dict[str, list[Path]] = {}
    for path in files_in(folder, {".txt"}):
        word = path.stem.lower().rpartition("_")[2]
        if word in _SET_WORDS:
            (lists if word == path.stem.lower() else of_classes).setdefault(word, []).append(path)
    by_split: dict[str, list[Path]] = {}
    for word, paths in (lists or of_classes).items():
        # `trainval` repeats the other lists if they exist.
        split = split_of(word)
        if split and not (word == "trainval" and "train" in (lists or of_classes)):
            by_split.setdefault(split, []).extend(paths)
    return by_split


def _listed_files(folder: Path, image_sets: list[Path], problems: list[Problem]) -> list[Path]:
    """Return the annotation files in the lists; lines of a class's list end with 1, -1 or 0."""
    files: dict[Path, None] = {}
    index = FolderIndex({".xml"})
    for image_set in image_sets:
        lost: list[str] = []
        for number, line in enumerate(read_lines(image_set), start=1):
            names = dict.fromkeys((line.strip(), re.sub(r"\s+(-1|0|1)$", "", line.strip())))
            path = next((path for name in names if name and (path := _listed_file(folder, name, index))), None)
            if path:
                files[path] = None
            elif line.strip():
                lost.append(f"{image_set}, line {number}: {line.strip()} has no XML file in {folder / 'Annotations'}")
        if lost:
            message = f"{lost[0]}; {len(lost)} of the images that it lists have none and are left out"
            problems.append(Problem("lost annotation", message, count=len(lost)))
    return list(files)


def _listed_file(folder: Path, name: str, index: FolderIndex) -> Path | None:
    """Return the XML file of an image named in a list, with or without folders and suffix."""
    plain = folder / "Annotations" / f"{name}.xml"
    if os.path.isfile(plain):
        return plain
    last = PurePosixPath(name.replace("\\", "/")).name
    return index.get((folder / "Annotations" / name).parent, Path(name).name) or index.get(folder / "Annotations", last)
