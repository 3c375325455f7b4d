"""Find image files by the names in annotations: in the expected folders, else anywhere below a root."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from detr_ft.data.images import IMAGE_SUFFIXES, name_in_other_case
from detr_ft.data.sources.listing import files_in, images_below, split_of_folder

_SAMPLE_FILES = 20


class ImageFinder:
    """Finds images by name, first in `folders` in their order, then below `root`.

    Each folder is listed at most once. With `split`, the search below `root` leaves out folders that are named after
    another split.
    """

    def __init__(self, root: Path, folders: Sequence[Path] = (), split: str | None = None) -> None:
        self.root = root.absolute()
        self.folders = [folder.absolute() for folder in folders]
        self._split = split
        self._index = FolderIndex(IMAGE_SUFFIXES)
        self._below: dict[str, list[Path]] | None = None
        self._num_located = 0
        self._missing: list[str] = []

    def find(self, name: str, where: str, problems: list[str], near: Path | None = None) -> Path:
        """Return the image that `locate` finds, else the path where it is expected.

        That path is beside a file whose name differs in case alone if there is one.
        """
        path = self.locate(name, where, problems, near)
        if path is not None:
            return path
        self._missing.append(name)
        plain = plain_path(name)
        candidates = (folder / PurePosixPath(plain).name for folder in self.folders)
        beside = next((path for path in candidates if name_in_other_case(path)), None)
        return beside or _join(self._starts(near)[0], plain)

    def locate(self, name: str, where: str, problems: list[str], near: Path | None = None) -> Path | None:
        """Return the first of these images that exists, else None.

        1. The name as a path from `near`, or without `near` from each folder, then from the root.
        2. The last part of the name in a folder.
        3. The file in a folder that has the name without suffix.
        4. The file below the root with the last part of the name, and with most of the parts before it. Several such
           files are a problem, which is added to `problems` and starts with `where`.
        """
        plain = plain_path(name)
        path = self._locate(plain, where, problems, near) if plain else None
        self._num_located += path is not None
        return path

    def find_in(self, names: Iterable[str], folders: Sequence[Path]) -> Path | None:
        """Return the image of the first name, with or without suffix, in the first folder with it, else None."""
        paths = (self._index.get(folder, name) for name in names for folder in folders)
        return next(filter(None, paths), None)

    def has_images(self, folder: Path) -> bool:
        """Return whether a folder has an image file."""
        return bool(self._index.by_stem(folder))

    def all_missing(self, origin: Path) -> list[str]:
        """Return a problem if no name had a file. The doctor reports single missing files."""
        if not self._missing or self._num_located:
            return []
        return [
            f"{origin}: none of its {len(self._missing)} images is below {self.root}, for example {self._missing[0]}. "
            "Put the images there"
        ]

    def _locate(self, name: str, where: str, problems: list[str], near: Path | None) -> Path | None:
        last = PurePosixPath(name).name
        as_written = (_join(start, name) for start in self._starts(near))
        by_last_part = (folder / last for folder in self.folders)
        return (
            first_file(as_written)
            or first_file(by_last_part)
            or self.find_in([last], self.folders)
            or self._search_below(name, where, problems)
        )

    def _starts(self, near: Path | None) -> list[Path]:
        return [near] if near else [*self.folders, self.root]

    def _search_below(self, name: str, where: str, problems: list[str]) -> Path | None:
        if self._below is None:
            self._below = {}
            for path in images_below(self.root):
                if not self._is_in_other_split(path):
                    self._below.setdefault(path.name, []).append(path)
        parts = PurePosixPath(name).parts
        candidates = self._below.get(parts[-1], [])
        lengths = [_num_common_parts(parts, path.parts) for path in candidates]
        best = [path for path, length in zip(candidates, lengths, strict=True) if length == max(lengths)]
        if len(best) > 1:
            problems.append(
                f"{where}: the image {name} is ambiguous: {', '.join(map(str, best[:3]))}. "
                "Write the folder before the name, or remove the copies"
            )
        return best[0] if best else None

    def _is_in_other_split(self, path: Path) -> bool:
        splits = {split_of_folder(folder) for folder in path.relative_to(self.root).parents}
        return self._split is not None and bool(splits - {None, self._split})


class FolderIndex:
    """The files of folders with given suffixes, by name and by stem. Each folder is listed once."""

    def __init__(self, suffixes: Collection[str]) -> None:
        self._suffixes = suffixes
        self._files: dict[Path, tuple[dict[str, Path], dict[str, Path]]] = {}

    def by_stem(self, folder: Path) -> dict[str, Path]:
        """Return the files of a folder by their names without suffix."""
        return self._list(folder)[1]

    def get(self, folder: Path, name: str) -> Path | None:
        """Return the file of a folder with this name, else with this stem, else None."""
        by_name, by_stem = self._list(folder)
        return by_name.get(name) or by_stem.get(name)

    def _list(self, folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        if folder not in self._files:
            files = files_in(folder, self._suffixes)
            self._files[folder] = {path.name: path for path in files}, {path.stem: path for path in files}
        return self._files[folder]


def fullest_folder(names: Sequence[str], folders: Sequence[Path]) -> tuple[Path, float]:
    """Return the folder with most files of a sample of names, and the fraction of the sample in it."""
    sample = names[:: max(1, len(names) // _SAMPLE_FILES)]
    hits = [sum(os.path.isfile(folder / name) for name in sample if name) for folder in folders]
    return folders[hits.index(max(hits))], max(hits) / max(1, len(sample))


def image_root(annotations: Path) -> Path:
    """Return the folder above the images of an annotation file: its own, or the parent of `annotations/`."""
    folder = annotations.parent
    return folder.parent if folder.name.lower() in ("annotations", "labels", "json") else folder


def plain_path(name: str) -> str:
    """Return a name as a path with slashes, of a URL its decoded path; empty for a name of no file."""
    address = re.match(r"\w+://[^/]*/([^?#]*)", name)
    path = unquote(address[1]) if address else name.replace("\\", "/").removeprefix("./")
    return path if PurePosixPath(path).name not in ("", "..") else ""


def first_file(paths: Iterable[Path], exists: Callable[[Path], bool] = os.path.isfile) -> Path | None:
    """Return the first path that exists, else None. `os.path` returns False for names that are too long."""
    return next((path for path in paths if exists(path)), None)


def candidate_paths(path: str, bases: Sequence[Path]) -> Iterator[Path]:
    """Yield a path of another machine from each base: as written, then its tails, the longest first."""
    yield from (base / path for base in bases)
    yield from (base / tail for tail in path_tails(path) for base in bases)


def path_tails(path: str) -> Iterator[Path]:
    """Return a path without `.` and `..`, then its tails, the longest first."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return (Path(*parts[start:]) for start in range(len(parts)))


def _join(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder.absolute() / name))


def _num_common_parts(path: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return the number of last parts that two paths have in common."""
    pairs = list(zip(reversed(path), reversed(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
