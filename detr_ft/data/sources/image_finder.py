"""Find image files by the names in annotations: in the expected folders, else anywhere below a root."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from detr_ft.data.images import IMAGE_SUFFIXES, name_in_other_case
from detr_ft.data.sources.listing import files_in, folders_in, images_below, images_in, split_of_path

_SAMPLE_FILES = 20

log = logging.getLogger(__name__)


class ImageFinder:
    """Finds images by name, first in `folders` in their order, then below `root`.

    Each folder is listed at most once. With `split`, the search below `root` leaves out folders that are named after
    another split. A user's own folder of images, `images`, replaces both.
    """

    def __init__(
        self, root: Path, folders: Sequence[Path] = (), split: str | None = None, images: Path | None = None
    ) -> None:
        self.root = (images or root).absolute()
        self.folders = [self.root] if images else [folder.absolute() for folder in folders]
        self._given = images is not None
        self._split = split
        self._index = FolderIndex(IMAGE_SUFFIXES)
        self._below: NameIndex | None = None
        self._folder_names: set[str] = set()
        self._num_located = 0
        self._missing: list[str] = []
        self._substitutes: list[tuple[str, Path]] = []

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
        2. The last part of the name in a folder, then in another spelling (see `NameIndex`).
        3. The same below the root, with most of the parts of the name before the last. Several such files are a problem,
           which is added to `problems` and starts with `where`.
        """
        path = self._locate(name, where, problems, near)
        self._num_located += path is not None
        return path

    def find_in(self, names: Iterable[str], folders: Sequence[Path]) -> Path | None:
        """Return the image of the first name in the first folder with it, else None.

        Names as written go before other spellings.
        """
        for name in filter(None, names):
            exact = first_file(folder / name for folder in folders)
            path = exact or next(filter(None, (self._index.get(folder, name) for folder in folders)), None)
            if path:
                return path
        return None

    def note_found(self) -> None:
        """Count an image that was found by `find_in`."""
        self._num_located += 1

    def note_missing(self, name: str) -> None:
        """Count an image that was not found by `find_in`."""
        self._missing.append(name)

    def has_images(self, folder: Path) -> bool:
        """Return whether a folder has an image file."""
        return bool(self._index.names(folder))

    def all_missing(self, origin: Path) -> list[str]:
        """Return a problem if no name had a file. The doctor reports single missing files."""
        if not self._missing or self._num_located:
            return []
        return [
            f"{origin}: none of its {len(self._missing)} images is below {self.root}, for example {self._missing[0]}. "
            "Put the images there, or name their folder with --images (data.images)"
        ]

    def log_substitutes(self, origin: Path) -> None:
        """Log the images that have another name, or are in another folder, than the annotations state."""
        renamed = [(name, path) for name, path in self._substitutes if PurePosixPath(name).name != path.name]
        moved = [(name, path) for name, path in self._substitutes if _is_in_other_folder(name, path)]
        for level, what, some in (
            (logging.WARNING, "under another spelling of their name", renamed),
            (logging.INFO, "in another folder than stated", moved),
        ):
            if some:
                name, path = some[0]
                log.log(
                    level, "%s: %d images are found %s, the first is %s for %s", origin, len(some), what, path, name
                )

    def _locate(self, name: str, where: str, problems: list[str], near: Path | None) -> Path | None:
        plain = plain_path(name)
        if not plain:
            return None
        last, stated_folder = PurePosixPath(plain).name, PurePosixPath(plain).parent.name or (near.name if near else "")
        written = [_join(start, text) for start in self._starts(near) for text in dict.fromkeys((plain, name))]
        folders = [folder for folder in self.folders if self._may_replace(folder, stated_folder)]
        exact = first_file(written) or first_file(folder / last for folder in folders)
        if exact:
            return exact
        before = len(problems)
        path = self.find_in([last], folders) or self._search_below(plain, stated_folder, where, problems)
        if path and len(problems) == before:
            self._substitutes.append((plain, path))
        return path

    def _may_replace(self, folder: Path, stated: str) -> bool:
        """Return False for another folder than the stated one if that exists: its image is then missing."""
        if not stated or folder.name == stated:
            return True
        return not any(os.path.isdir(start / stated) for start in (*self.folders, self.root))

    def _starts(self, near: Path | None) -> list[Path]:
        if self._given:
            return [self.root]
        return [near] if near else [*self.folders, self.root]

    def _search_below(self, name: str, stated_folder: str, where: str, problems: list[str]) -> Path | None:
        if self._below is None:
            self._below = NameIndex(path for path in images_below(self.root) if not self._is_in_other_split(path))
            self._folder_names = {path.parent.name for path in self._below.files()}
        parts = PurePosixPath(name).parts
        candidates = self._below.get(parts[-1])
        if stated_folder in self._folder_names:  # and not the image of the same name in another folder
            candidates = [path for path in candidates if path.parent.name == stated_folder]
        if not candidates:
            return None
        best = _distinct(most_similar(parts[:-1], candidates))
        if len(best) > 1:
            problems.append(
                f"{where}: the image {name} is ambiguous: {', '.join(map(str, best[:3]))}. "
                "Write the folder before the name, remove the copies, or name the folder of the images with --images (data.images)"
            )
        return best[0] if best else None

    def _is_in_other_split(self, path: Path) -> bool:
        return self._split is not None and split_of_path(path, self.root) not in (None, self._split)


class NameIndex:
    """Files by their names, as written and in other spellings.

    Spellings are equal if they are after percent-decoding, in Unicode's composed form (NFC); else in lower case, if one
    file alone has that name in its folder; else names are without the suffix of an image. macOS writes decomposed names,
    other systems ignore case, and tools percent-encode names or change suffixes.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = {}
        self._by_spelling: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        self._by_case: dict[str, list[Path]] | None = None
        for file in files:
            self._by_name.setdefault(file.name, []).append(file)
            self._by_spelling.setdefault(_spelling(file.name), []).append(file)
            self._by_stem.setdefault(_stem(file.name), []).append(file)

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def get(self, name: str) -> list[Path]:
        """Return the files with this name, else in another spelling, else in another case, else with its stem."""
        return (
            self._by_name.get(name)
            or self._by_spelling.get(_spelling(name))
            or self._in_other_case(name)
            or self._by_stem.get(_stem(name))
            or []
        )

    def _in_other_case(self, name: str) -> list[Path]:
        if self._by_case is None:
            self._by_case = {}
            for file in self.files():
                self._by_case.setdefault(_spelling(file.name).casefold(), []).append(file)
        files = self._by_case.get(_spelling(name).casefold(), [])
        folders = Counter(file.parent for file in files)
        return [file for file in files if folders[file.parent] == 1]

    def files(self) -> list[Path]:
        """Return all files, in the order in which they were given."""
        return [file for files in self._by_name.values() for file in files]


class FolderIndex:
    """The files of folders with given suffixes, by name. Each folder is listed once."""

    def __init__(self, suffixes: Collection[str]) -> None:
        self._suffixes = suffixes
        self._folders: dict[Path, NameIndex] = {}

    def names(self, folder: Path) -> NameIndex:
        """Return the files of a folder by their names."""
        if folder not in self._folders:
            self._folders[folder] = NameIndex(files_in(folder, self._suffixes))
        return self._folders[folder]

    def get(self, folder: Path, name: str) -> Path | None:
        """Return the only file of a folder with this name in any spelling, else None."""
        files = self.names(folder).get(name)
        return files[0] if len(files) == 1 else None


def _is_in_other_folder(name: str, path: Path) -> bool:
    return len(PurePosixPath(name).parts) > 1 and PurePosixPath(name).parent.name != path.parent.name


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name))


def _stem(name: str) -> str:
    """Return a name in its plain spelling, without a suffix of images and annotations."""
    spelling = _spelling(name)
    stem, dot, suffix = spelling.rpartition(".")
    return stem if stem and dot + suffix.lower() in _SUFFIXES else spelling


_SUFFIXES = IMAGE_SUFFIXES | {".txt", ".xml", ".json"}


def fullest_folder(names: Sequence[str], folders: Sequence[Path]) -> tuple[Path, float]:
    """Return the folder with most files of a sample of names, and the fraction of the sample in it."""
    sample = names[:: max(1, len(names) // _SAMPLE_FILES)]
    hits = [sum(os.path.isfile(folder / name) for name in sample if name) for folder in folders]
    return folders[hits.index(max(hits))], max(hits) / max(1, len(sample))


def image_root(annotations: Path) -> Path:
    """Return the folder above the images of an annotation file: its own, or the parent of `annotations/`."""
    folder = annotations.parent
    return folder.parent if folder.name.lower() in ("annotations", "labels", "json") else folder


def folder_of_images(folder: Path) -> Path:
    """Return a folder of annotations if images are below it, else its parent if that has images near."""
    near = [folder.absolute().parent, *folders_in(folder.absolute().parent)]
    return folder if images_below(folder) or not any(map(images_in, near)) else folder.absolute().parent


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
    parts = [part for part in without_drive(path.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
    return (Path(*parts[start:]) for start in range(len(parts)))


def without_drive(path: str) -> str:
    """Return a path of Windows without its drive, also one from the drive's folder (`D:images/a.jpg`)."""
    return re.sub(r"^[A-Za-z]:", "", path)


def _join(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder.absolute() / name))


def most_similar(folders: tuple[str, ...], files: Sequence[Path]) -> list[Path]:
    """Return the files whose folders have the most last parts in common with `folders`."""
    lengths = [num_common_parts(folders, file.parts[:-1]) for file in files]
    return [file for file, length in zip(files, lengths, strict=True) if length == max(lengths)]


def _distinct(files: Sequence[Path]) -> list[Path]:
    """Return one path of each file: several lead to a file in a linked folder."""
    return (
        list({os.path.realpath(file): file for file in reversed(files)}.values())[::-1]
        if len(files) > 1
        else list(files)
    )


def num_common_parts(path: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return the number of last parts that two paths have in common."""
    pairs = list(zip(reversed(path), reversed(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
