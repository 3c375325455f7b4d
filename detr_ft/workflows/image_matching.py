"""Match the images of predictions, by file name or by id, with the rows of a split."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from datasets import Dataset

from detr_ft.data.images import IMAGE_SUFFIXES

_SUFFIXES = IMAGE_SUFFIXES | {".txt", ".xml", ".json"}
_MAX_ID_DIGITS = 18
_EXACT, _BY_NAME, _BY_STEM = 3, 2, 1  # ranks of a match

ImageId = int | str


@dataclass
class ImageMatches:
    """The row of each image that the split has, and a message for each ambiguous one."""

    rows: dict[ImageId, int] = field(default_factory=dict)
    ambiguous: list[str] = field(default_factory=list)


class _Candidate(NamedTuple):
    """A row that a name may refer to.

    A larger rank is a better match: exact, by name or by stem, then the number of common folders.
    """

    row: int
    rank: tuple[int, int]


class SplitImages:
    """The images of a split, by id, path and name. Names are compared in Unicode's composed form."""

    def __init__(self, split: Dataset) -> None:
        images = split.with_format(None).select_columns(["image"])
        self._paths = [plain_name(row["image"]["path"] or "") for row in images]
        self._ids: dict[ImageId, int] = {image_id: row for row, image_id in enumerate(split["image_id"][:])}
        known = [(row, path) for row, path in enumerate(self._paths) if path]
        self._by_path = _index((path, row) for row, path in known)
        self._by_name = _index((PurePosixPath(path).name, row) for row, path in known)
        self._by_stem = _index((_stem(path), row) for row, path in known)
        numbered = ((_stem(path), row) for row, path in known)
        self._by_number = _index((int(stem), row) for stem, row in numbered if _is_digits(stem))

    @property
    def have_names(self) -> bool:
        """True if an image has a file name."""
        return bool(self._by_path)

    def name_of(self, row: int) -> str:
        """Return the path of an image, or its id if it has none."""
        return self._paths[row] or f"image {list(self._ids)[row]}"

    def first_name(self) -> str:
        """Return the path of the first image with one, for messages."""
        return next(filter(None, self._paths), "")

    def match_ids(self, ids: Iterable[ImageId]) -> ImageMatches:
        """Match ids; digits as text are numbers."""
        numbers = {image_id: as_number(image_id) for image_id in ids}
        return ImageMatches({key: self._ids[number] for key, number in numbers.items() if number in self._ids})

    def match_names(self, names: Collection[str]) -> ImageMatches:
        """Match file names: the path, else the name with most folders in common, else the same for the stem.

        Better matches come first: an image that has one is no candidate for other names. A name that fits several images
        equally is ambiguous, and so are names that fit one image equally.
        """
        spellings: dict[str, list[str]] = {}
        for name in names:
            spellings.setdefault(plain_name(name), []).append(name)
        by_rank: dict[tuple[int, int], list[tuple[str, list[int]]]] = {}
        for plain in spellings:
            candidates = self._best(plain)
            if candidates:
                by_rank.setdefault(candidates[0].rank, []).append((plain, [one.row for one in candidates]))
        matches = ImageMatches()
        matched_rows: set[int] = set()
        for rank in sorted(by_rank, reverse=True):
            by_row: dict[int, list[str]] = {}
            for plain, rows in by_rank[rank]:
                free = [row for row in rows if row not in matched_rows]
                if len(free) == 1:
                    by_row.setdefault(free[0], []).append(plain)
                elif free:
                    first, second = map(self.name_of, free[:2])
                    matches.ambiguous.append(
                        f"{spellings[plain][0]} is ambiguous: it may be {first} or {second}. Write more of its path"
                    )
            for row, some in by_row.items():
                if len(some) > 1 and rank[0] < _EXACT:  # else one path, relative and absolute
                    matches.ambiguous.append(
                        f"{some[0]} and {some[1]} both match the image {self.name_of(row)}. Write more of their paths"
                    )
                matches.rows |= {name: row for plain in some for name in spellings[plain]}
            matched_rows |= set(by_row)
        return matches

    def match_stems(self, ids: Collection[ImageId]) -> ImageMatches:
        """Match ids that are names, or numbers as names of files write them: 7 is 000007.jpg."""
        texts = {str(image_id): image_id for image_id in ids}
        matches = self.match_names(list(texts))
        rows = {texts[str(text)]: row for text, row in matches.rows.items()}
        used = set(rows.values())
        for image_id in ids:
            number = as_number(image_id)
            numbered = [] if number is None else self._by_number.get(number, [])
            if image_id not in rows and len(numbered) == 1 and numbered[0] not in used:
                rows[image_id] = numbered[0]
        return ImageMatches(rows, matches.ambiguous)

    def _best(self, name: str) -> list[_Candidate]:
        absolute = plain_name(os.path.abspath(name)) if name else ""
        exact = self._by_path.get(name) or self._by_path.get(absolute)
        if exact:
            return [_Candidate(row, (_EXACT, 0)) for row in exact]
        by_name = self._by_name.get(PurePosixPath(name).name, [])
        rows, kind = (by_name, _BY_NAME) if by_name else (self._by_stem.get(_stem(name), []), _BY_STEM)
        candidates = [_Candidate(row, (kind, _num_common_folders(name, self._paths[row]))) for row in rows]
        top = max((candidate.rank for candidate in candidates), default=(0, 0))
        return [candidate for candidate in candidates if candidate.rank == top]


def plain_name(name: str) -> str:
    """Return a path with slashes, without `.` and `..` where they can be resolved, in NFC."""
    plain = name.strip().replace("\\", "/")
    if plain and "://" not in plain:
        plain = os.path.normpath(plain).replace("\\", "/")
    return unicodedata.normalize("NFC", plain)


def as_number(value: object) -> int | None:
    """Return an id as a whole number, also from digits as text; None for anything else."""
    if isinstance(value, str) and _is_digits(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def names_from_common_folder(paths: Sequence[str]) -> list[str]:
    """Return paths with slashes, from the name of their common folder; as they are if they have none."""
    try:
        root = os.path.dirname(os.path.commonpath([os.path.dirname(path) for path in paths]))
    except ValueError:  # several drives of Windows, relative and absolute paths, or no path
        return [path.replace("\\", "/") for path in paths]
    return [os.path.relpath(path, root).replace(os.sep, "/") if root else path for path in paths]


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS


def _index(pairs: Iterable[tuple[ImageId, int]]) -> Mapping[ImageId, list[int]]:
    index: dict[ImageId, list[int]] = {}
    for key, row in pairs:
        index.setdefault(key, []).append(row)
    return index


def _stem(path: str) -> str:
    name = PurePosixPath(path)
    return name.stem if name.suffix.lower() in _SUFFIXES else name.name


def _num_common_folders(path: str, other: str) -> int:
    """Return the number of folders before the name that two paths have in common, from the last."""
    pairs = list(zip(reversed(path.split("/")[:-1]), reversed(other.split("/")[:-1]), strict=False))
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
