"""Finding images by the names that annotations give them, wherever below a folder they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from detr_ft.data.images import name_but_for_case
from detr_ft.data.sources.record import IMAGE_SUFFIXES, files_in, images_in, split_of, split_of_folder


class ImageSearch:
    """Finds images below a folder, which is listed once and only when a name isn't where it says.

    Those in folders that bear the name of another split than `split`, if it is given, aren't taken.
    """

    def __init__(self, folder: Path, split: str | None = None) -> None:
        self.folder = folder.absolute()
        self._split = split
        self._index: dict[str, list[Path]] | None = None
        self._found = 0
        self._missing: list[str] = []

    def find(self, name: str, where: str, problems: list[str], near: Path | None = None) -> Path:
        """The image called `name`: as it says from `near` (the folder), or the file whose last folders are most alike.

        A name with several such files is added to `problems`; one with none gives the path at which it should be.
        """
        path = self.locate(name, where, problems, near)
        if path is None:
            self._missing.append(name)
            return _joined(near or self.folder, plain_path(name))
        return path

    def locate(self, name: str, where: str, problems: list[str], near: Path | None = None) -> Path | None:
        """As `find`, but None for a name without a file, which is not counted as missing."""
        path = self._located(plain_path(name), where, problems, near or self.folder)
        self._found += path is not None
        return path

    def _located(self, name: str, where: str, problems: list[str], near: Path) -> Path | None:
        if not name:
            return None
        as_said = _joined(near, name)
        if os.path.isfile(as_said):  # unlike Path.is_file, it bears a name too long for a file
            return as_said
        parts = PurePosixPath(name).parts
        candidates = self._by_name().get(parts[-1], [])
        alike = [_common_tail(parts, path.parts) for path in candidates]
        best = [path for path, length in zip(candidates, alike, strict=True) if length == max(alike)]
        if len(best) > 1:
            problems.append(
                f"{where}: the image {name} is ambiguous: {', '.join(map(str, best[:3]))}; "
                "write the folder before the name, or remove the copies"
            )
        return best[0] if best else None

    def nothing_found(self, origin: Path) -> Iterator[str]:
        """A problem to report when every name was looked for in vain; a few missing files are left to the doctor."""
        if self._missing and not self._found:
            yield (
                f"{origin}: none of its {len(self._missing)} images is below {self.folder}, "
                f"for example {self._missing[0]}; put the images there"
            )

    def _by_name(self) -> dict[str, list[Path]]:
        if self._index is None:
            self._index = {}
            for path in images_in(self.folder):
                if not self._is_of_another_split(path):
                    self._index.setdefault(path.name, []).append(path)
        return self._index

    def _is_of_another_split(self, path: Path) -> bool:
        splits = {split_of_folder(above) for above in path.relative_to(self.folder).parents}
        return self._split is not None and bool(splits - {None, self._split})


class NearbyImages:
    """Finds the images of a table in the folders where a table's usually are, the nearer before the farther.

    Those are its own and the one above, images/ in either, and folders named as the file or the split in each of these.
    What is in none of them is searched for below the table, but not among another split's images of the same names.
    """

    def __init__(self, file: Path, split: str) -> None:
        near = [place / name for place in (file.parent, file.parent.parent) for name in ("", "images")]
        words = [word for word in (file.stem, split, "val", "valid", "dev") if split_of(word) == split]
        places = dict.fromkeys([*near, *(place / word for place in near for word in words)])
        self.folders = [place.absolute() for place in places if place.is_dir()]
        self._below = ImageSearch(annotated_root(file), split)

    def find(self, name: str, where: str, problems: list[str]) -> Path:
        """The path of the image with this plain path, or where there is none, the one at which it should be.

        That is beside a file whose name differs in case alone. A name with several files is added to `problems`.
        """
        last = PurePosixPath(name).name
        candidates = (folder / written for written in (name, last) for folder in self.folders)
        found = next((path for path in candidates if os.path.isfile(path)), None)
        found = found or self._by_stem.get(last) or self._below.locate(name, where, problems)
        near = (folder / last for folder in self.folders if name_but_for_case(folder / last))
        return found or next(near, self.folders[0] / name)

    @cached_property
    def _by_stem(self) -> dict[str, Path]:
        """Images by their name without its suffix, as Open Images' tables write them; the nearest folder's first."""
        files = [path for folder in reversed(self.folders) for path in files_in(folder, IMAGE_SUFFIXES)]
        return {path.stem: path for path in files}


def annotated_root(file: Path) -> Path:
    """The folder below which the images of a file are: its own, or the one above if its own is for annotations."""
    return file.parent.parent if file.parent.name.lower() in ("annotations", "labels", "json") else file.parent


def plain_path(name: str) -> str:
    """A name as a path with slashes: without the address and the query of a URL; empty where it names no file."""
    address = re.match(r"\w+://[^/]*/([^?#]*)", name)
    path = unquote(address[1]) if address else name.replace("\\", "/").removeprefix("./")
    return path if PurePosixPath(path).name not in ("", "..") else ""


def _joined(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder.absolute() / name))


def _common_tail(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many last parts two paths have in common."""
    pairs = list(zip(reversed(one), reversed(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
