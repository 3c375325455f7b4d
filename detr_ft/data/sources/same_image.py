"""Records of one image file: united, or separated if their stated names contradict each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from detr_ft.data.sources.image_finder import num_common_parts, plain_path
from detr_ft.data.sources.problems import Problem
from detr_ft.data.sources.record import Record


def unite_records(
    splits: Mapping[str, Sequence[Record]], origin: Path
) -> tuple[dict[str, list[Record]], list[Problem]]:
    """Return the splits with one record for each image file, and the problems of files with several.

    Several links may lead to one file. The objects of its records are united, without repeated ones. A record whose stated
    folders fit the file worse than those of another names a different image, which is missing: a path of its own is set.
    """
    united: dict[str, list[Record]] = {}
    problems: list[Problem] = []
    for split, records in splits.items():
        removed: set[int] = set()
        for group in _groups(records):
            first, *others = _separated(group, origin)
            for other in others:
                _add_objects(first, other)
                removed.add(id(other))
            if others:
                message = f"{origin}: {len(others) + 1} records name {first.path}; it has the objects of all"
                problems.append(Problem("repeated image", message))
        united[split] = [record for record in records if id(record) not in removed]
    return united, problems


def _groups(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Yield the records of each file that has several."""
    real_folder = cache(os.path.realpath)
    by_file: dict[str, list[Record]] = {}
    for record in records:
        if record.content is None:
            path = str(record.path)
            folder, name = os.path.split(path)
            file = os.path.realpath(path) if os.path.islink(path) else os.path.join(real_folder(folder), name)
            by_file.setdefault(file, []).append(record)
    return (group for group in by_file.values() if len(group) > 1)


def _separated(group: list[Record], origin: Path) -> list[Record]:
    """Return the records of a file that fit it best; set the expected path of others.

    A name without folders fits every folder. If different names fit equally badly, none of them is sure to be the file.
    """
    fits = {id(record): _fit(record) for record in group}
    best = max(fits.values())
    chosen = [record for record in group if fits[id(record)] == best]
    if not best[0] and len({record.stated for record in chosen}) > 1:
        chosen = []
    root = origin if origin.is_dir() else origin.parent
    for record in group:
        if record not in chosen:
            record.path = Path(os.path.normpath(root.absolute() / plain_path(record.stated)))
    return chosen or group[:1]


def _fit(record: Record) -> tuple[bool, int]:
    """Return whether all stated folders are those of the file, else the number of last ones that are."""
    folders = PurePosixPath(plain_path(record.stated)).parts[:-1]
    common = num_common_parts(folders, record.path.parts[:-1])
    return (True, 0) if common == len(folders) else (False, common)


def _add_objects(record: Record, other: Record) -> None:
    """Append the objects and problems of another record, without objects that the record has."""
    present = set(zip(map(tuple, record.boxes), record.names, strict=True))
    for index, (box, name) in enumerate(zip(other.boxes, other.names, strict=True)):
        if index in other.faults or (tuple(box), name) not in present:
            record.add(
                box,
                name,
                area=other.areas[index],
                annotation_id=other.ids[index],
                flags=other.flags[index],
                fault=other.faults.get(index, ""),
            )
    record.unreadable += other.unreadable
    record.without_area += other.without_area
    record.doubts += other.doubts
    record.unlabeled = record.unlabeled and other.unlabeled
