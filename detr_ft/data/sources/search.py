"""Finding images by the names that annotations give them, wherever below a folder they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from detr_ft.data.sources.records import images_in


class ImageSearch:
    """Finds images below a folder, which is listed once and only when a name isn't where it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
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
                self._index.setdefault(path.name, []).append(path)
        return self._index


def plain_path(name: str) -> str:
    """A name as a path with slashes: without the address and the query of a URL, or a Windows drive."""
    address = re.match(r"\w+://[^/]*/([^?#]*)", name)
    if address:
        return unquote(address[1])
    return name.replace("\\", "/").removeprefix("./")


def _joined(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder.absolute() / name))


def _common_tail(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many last parts two paths have in common."""
    pairs = list(zip(reversed(one), reversed(other), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
