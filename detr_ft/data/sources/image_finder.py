"""Files by the names that annotations give them: in the folders where they should be, else anywhere below one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from detr_ft.data.images import IMAGE_SUFFIXES, name_but_for_case
from detr_ft.data.sources.listing import files_in, images_below, split_of_folder


class ImageFinder:
    """Finds images by name: in `folders`, the first one first, else below `root`; each folder is listed at most once.

    The search below `root` leaves out folders that bear the name of another split than `split`, if that is given.
    """

    def __init__(self, root: Path, folders: Sequence[Path] = (), split: str | None = None) -> None:
        self.root = root.absolute()
        self.folders = [folder.absolute() for folder in folders]
        self._split = split
        self._index = FolderIndex(IMAGE_SUFFIXES)
        self._below: dict[str, list[Path]] | None = None
        self._found = 0
        self._missing: list[str] = []

    def find(self, name: str, where: str, problems: list[str], near: Path | None = None) -> Path:
        """As `locate`; for a name without a file, the path at which it should be.

        That is beside a file whose name differs in case alone, else as the name says.
        """
        path = self.locate(name, where, problems, near)
        if path is not None:
            return path
        self._missing.append(name)
        plain = plain_path(name)
        candidates = (folder / PurePosixPath(plain).name for folder in self.folders)
        beside = next((path for path in candidates if name_but_for_case(path)), None)
        return beside or _joined(self._starts(near)[0], plain)

    def locate(self, name: str, where: str, problems: list[str], near: Path | None = None) -> Path | None:
        """The image called `name`, or None: the first of these that is there.

        The name as a path from `near`, or without that from each folder, then from the root; its last part in a folder;
        the file in a folder that it names without suffix; the file below the root whose last folders are most alike.
        Several files that are as much alike are added to `problems`.
        """
        plain = plain_path(name)
        path = self._located(plain, where, problems, near) if plain else None
        self._found += path is not None
        return path

    def _located(self, name: str, where: str, problems: list[str], near: Path | None) -> Path | None:
        last = PurePosixPath(name).name
        as_written = (_joined(start, name) for start in self._starts(near))
        by_last_part = (folder / last for folder in self.folders)
        return (
            first_file(as_written)
            or first_file(by_last_part)
            or self.among([last], self.folders)
            or self._search_below(name, where, problems)
        )

    def _starts(self, near: Path | None) -> list[Path]:
        return [near] if near else [*self.folders, self.root]

    def among(self, names: Iterable[str], folders: Sequence[Path]) -> Path | None:
        """The image of the first name, with or without its suffix, that one of the folders holds, the first folder first."""
        found = (self._index.get(folder, name) for name in names for folder in folders)
        return next(filter(None, found), None)

    def holds_images(self, folder: Path) -> bool:
        """Whether a folder has an image file."""
        return bool(self._index.by_stem(folder))

    def nothing_found(self, origin: Path) -> Iterator[str]:
        """A problem to report when every name was looked for in vain; a few missing files are left to the doctor."""
        if self._missing and not self._found:
            yield (
                f"{origin}: none of its {len(self._missing)} images is below {self.root}, "
                f"for example {self._missing[0]}; put the images there"
            )

    def _search_below(self, name: str, where: str, problems: list[str]) -> Path | None:
        if self._below is None:
            self._below = {}
            for path in images_below(self.root):
                if not self._is_of_another_split(path):
                    self._below.setdefault(path.name, []).append(path)
        parts = PurePosixPath(name).parts
        candidates = self._below.get(parts[-1], [])
        alike = [_common_tail(parts, path.parts) for path in candidates]
        best = [path for path, length in zip(candidates, alike, strict=True) if length == max(alike)]
        if len(best) > 1:
            problems.append(
                f"{where}: the image {name} is ambiguous: {', '.join(map(str, best[:3]))}; "
                "write the folder before the name, or remove the copies"
            )
        return best[0] if best else None

    def _is_of_another_split(self, path: Path) -> bool:
        splits = {split_of_folder(above) for above in path.relative_to(self.root).parents}
        return self._split is not None and bool(splits - {None, self._split})


class FolderIndex:
    """The files of folders with some suffixes, by name and by stem; each folder is listed once."""

    def __init__(self, suffixes: Collection[str]) -> None:
        self._suffixes = suffixes
        self._files: dict[Path, tuple[dict[str, Path], dict[str, Path]]] = {}

    def by_stem(self, folder: Path) -> dict[str, Path]:
        """The files of a folder by their names without the suffix."""
        return self._listed(folder)[1]

    def get(self, folder: Path, name: str) -> Path | None:
        """The file of a folder with this name, else the one with this stem."""
        by_name, by_stem = self._listed(folder)
        return by_name.get(name) or by_stem.get(name)

    def _listed(self, folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
        if folder not in self._files:
            files = files_in(folder, self._suffixes)
            self._files[folder] = {path.name: path for path in files}, {path.stem: path for path in files}
        return self._files[folder]


def fullest_folder(names: Sequence[str], folders: Sequence[Path]) -> tuple[Path, float]:
    """The folder that holds most of a sample of files, the first among equals, and the fraction of the sample in it."""
    sample = names[:: max(1, len(names) // 20)]
    hits = [sum(os.path.isfile(folder / name) for name in sample if name) for folder in folders]
    return folders[hits.index(max(hits))], max(hits) / max(1, len(sample))


def annotated_root(file: Path) -> Path:
    """The folder below which the images of a file are: its own, or the one above if its own is for annotations."""
    return file.parent.parent if file.parent.name.lower() in ("annotations", "labels", "json") else file.parent


def plain_path(name: str) -> str:
    """A name as a path with slashes: without the address and the query of a URL; empty where it names no file."""
    address = re.match(r"\w+://[^/]*/([^?#]*)", name)
    path = unquote(address[1]) if address else name.replace("\\", "/").removeprefix("./")
    return path if PurePosixPath(path).name not in ("", "..") else ""


def first_file(paths: Iterable[Path], exists: Callable[[Path], bool] = os.path.isfile) -> Path | None:
    """The first of the paths at which there is a file. Unlike `Path.is_file`, for names too long for a file there is none."""
    return next((path for path in paths if exists(path)), None)


def from_another_machine(path: str, bases: Sequence[Path]) -> Iterator[Path]:
    """Where a path may lead here: from each base as it is written, then its ends from each base, the longest first."""
    yield from (base / path for base in bases)
    yield from (base / tail for tail in tails(path) for base in bases)


def tails(path: str) -> Iterator[Path]:
    """A path without `.` and `..`, then the ends of it, the longest first."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return (Path(*parts[start:]) for start in range(len(parts)))


def _joined(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder.absolute() / name))


def _common_tail(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many last parts two paths have in common."""
    pairs = list(zip(reversed(one), reversed(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
