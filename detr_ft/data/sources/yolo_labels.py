"""Label files of YOLO: one for each image, with a row for each object in fractions of the image.

A row is a class and a box (center and size), or a class and the points of a polygon (segments, corners of a rotated box),
or a class, a box and keypoints.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.sources.image_finder import FolderIndex, NameIndex, most_similar
from detr_ft.data.sources.listing import files_below
from detr_ft.data.sources.parsing import parse_numbers, read_lines
from detr_ft.data.sources.problems import Problem
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.shapes_to_boxes import box_around
from detr_ft.data.sources.yolo_keypoints import recognize_keypoints
from detr_ft.errors import InputError

_MAX_FRACTION = 1.5  # larger numbers are no fractions, but pixels
_READING_THREADS = 8  # read headers of images from the disk
_MAX_CHARS_SHOWN = 80  # of a row in a message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Row:
    record: Record
    where: str
    words: list[str]
    values: list[float] | None  # None if a word is no number

    @property
    def count(self) -> int:
        return len(self.words)


@dataclass
class LabelReader:
    """Reads the label files of all splits.

    `keypoints` is the number of keypoint values of a row, None to recognize it. After reading, `reasons` are why the files
    are no label files of YOLO, and `problems` belong to no image.
    """

    names: Mapping[int, str]
    keypoints: int | None
    root: Path
    reasons: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def read(self, images: Mapping[str, Sequence[Path]]) -> dict[str, list[Record]]:
        """Return a record for each image of each split; one without a label file has no objects."""
        with ThreadPoolExecutor(_READING_THREADS) as pool:
            splits = {
                split: list(pool.map(Record.with_size, paths, range(len(paths)))) for split, paths in images.items()
            }
        records = [record for some in splits.values() for record in some]
        labels = self._labels([record.path for record in records])
        shared, rows = _shared_labels(labels), list[_Row]()
        for record in records:
            of_record = list(_rows(record, labels.get(record.path)))
            if of_record and record.path in shared:
                record.unreadable.append(shared[record.path])
            else:
                rows += of_record
        keypoints = self._keypoints(rows)
        if keypoints and self.keypoints is None:
            log.info(
                "%s: rows have a class, a box and %d numbers of keypoints, which are left out", self.root, keypoints
            )
        not_fractions = [row for row in rows if not self._add(row, keypoints)]
        if 2 * len(not_fractions) > len(rows):
            self.reasons.append(
                f"{not_fractions[0].where}: must be fractions of the image, got numbers above {_MAX_FRACTION:g} (in "
                f"{len(not_fractions)} of {len(rows)} rows), probably pixels. Divide x and widths by the "
                "image's width, y and heights by its height"
            )
        for record in records:
            record.unlabeled = record.path not in labels
        return splits

    def _keypoints(self, rows: Sequence[_Row]) -> int:
        """Return the number of keypoint values of a row; rows that may also be quadrilaterals are a problem."""
        if self.keypoints is not None:
            return self.keypoints
        reading = recognize_keypoints([row.values and row.values[1:] for row in rows])
        if reading.is_unclear:
            message = (
                f"{rows[0].where}: the 8 numbers of each of the {len(rows)} rows are read as the corners of a quadrilateral, "
                "and might be a box and 2 keypoints. For keypoints, write kpt_shape: [2, 2] into the YAML file"
            )
            self.problems.append(Problem("unclear rows", message, count=len(rows)))
        return reading.count

    def _labels(self, images: Sequence[Path]) -> dict[Path, Path]:
        """Return the label file of each image with one: in the usual folders, else below the root."""
        index = FolderIndex({".txt"})
        labels: dict[Path, Path] = {}
        for image in images:
            # Some tools append the suffix to the whole name.
            names = (f"{image.stem}.txt", f"{image.name}.txt")
            files = (index.get(folder, name) for name in names for folder in _label_folders(image))
            label = next(filter(None, files), None)
            if label:
                labels[image] = label
        labeled_folders = {image.parent for image in labels}
        without = [image for image in images if image.parent not in labeled_folders]
        if without:
            labels |= self._labels_elsewhere(without, set(labels.values()))
        self._add_orphans(labels)
        return labels

    def _labels_elsewhere(self, images: Sequence[Path], used: Collection[Path]) -> dict[Path, Path]:
        """Return the nearest label files of their names below the root, for images in folders without any."""
        files = [file for file in files_below(self.root, {".txt"}) if file not in used]
        below = NameIndex(file for file in files if is_label_file(file) or (file.is_file() and not file.stat().st_size))
        candidates = {image: most_similar(image.parts[:-1], below.get(f"{image.stem}.txt")) for image in images}
        labels = {image: some[0] for image, some in candidates.items() if len(some) == 1}
        if labels:
            folders = sorted({str(file.parent) for file in labels.values()})
            log.warning("%s: labels of %d images are in %s", self.root, len(labels), ", ".join(folders))
        return labels

    def _add_orphans(self, labels: Mapping[Path, Path]) -> None:
        """Add a problem for each folder with label files that have no image."""
        used = set(labels.values())
        index = FolderIndex({".txt"})
        for folder in sorted({label.parent for label in used}):
            orphans = [file for file in index.names(folder).files() if file not in used and is_label_file(file)]
            if orphans:
                message = (
                    f"{orphans[0]}: {len(orphans)} label files in {folder} have no image in the data, this is the first"
                )
                self.problems.append(Problem("lost annotation", message, count=len(orphans)))

    def _add(self, row: _Row, keypoints: int) -> bool:
        """Add the object of a row to its record. Return False if its numbers are no fractions."""
        values = self._coordinates(row, keypoints)
        if values is None:
            return True
        record, stated = row.record, row.words[0]
        x, y, w, h = _to_box(values)
        box = [x * record.width, y * record.height, w * record.width, h * record.height]
        if float(stated) in self.names:
            record.add(box, self.names[int(float(stated))])
        else:
            numbered = f"{min(self.names)} to {max(self.names)}" if self.names else "none"
            record.add(box, "", fault=f"{row.where}: class {stated} is not among the names ({numbered})")
        return all(abs(value) <= _MAX_FRACTION for value in values)

    def _coordinates(self, row: _Row, keypoints: int) -> list[float] | None:
        """Return the numbers of a row's box: center and size, or the points of a polygon; None for a problem."""
        is_polygon = not keypoints and row.count >= 7 and row.count % 2 == 1
        if row.values is not None and (row.count in (5, 5 + keypoints) or is_polygon):
            return row.values[1:] if is_polygon else row.values[1:5]
        got = " ".join(row.words)[:_MAX_CHARS_SHOWN]
        row.record.unreadable.append(f"{row.where}: {_expected(row.count, keypoints)}, got {got!r}")
        return None


def _expected(count: int, keypoints: int) -> str:
    if count == 6:
        return "must be a class and a box, without a sixth number (the confidence of a prediction)"
    if keypoints:
        return f"must be a class, a box (4 numbers) and {keypoints} numbers of keypoints (kpt_shape)"
    pose = " (for keypoints, set kpt_shape in the YAML file)" if count > 6 and count % 2 == 0 else ""
    return f"must be a class and a box (4 numbers) or a polygon (3 points or more){pose}"


def _to_box(values: list[float]) -> list[float]:
    """Return left, top, width and height of a row's box, or of the box around its polygon."""
    if len(values) > 4:
        return box_around([values[i : i + 2] for i in range(0, len(values), 2)])
    x, y, w, h = values
    return [x - w / 2, y - h / 2, w, h]


def _shared_labels(labels: Mapping[Path, Path]) -> dict[Path, str]:
    """Return a message for each image whose label file is that of another image of the folder too."""
    images: dict[tuple[Path, Path], list[Path]] = {}
    for image, label in labels.items():
        images.setdefault((label, image.parent), []).append(image)
    several = {key: some for key, some in images.items() if len({os.path.realpath(image) for image in some}) > 1}
    return {
        image: f"{label}: is the label file of {len(some)} images ({', '.join(one.name for one in some)}), so it is unknown "
        "whose its objects are. Rename the images and give each a label file"
        for (label, _), some in several.items()
        for image in some
    }


def _rows(record: Record, label: Path | None) -> Iterator[_Row]:
    try:
        lines = read_lines(label) if label else []
    except InputError as error:
        record.unreadable += error.problems
        return
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if words:
            yield _Row(record, f"{label}, line {number}", words, parse_numbers(words, len(words)))


def _label_folders(image: Path) -> list[Path]:
    """Return the possible folders of a label file: `labels/` instead of `images/`, and the image's own."""
    parts = list(image.parent.parts)
    if "images" not in parts:
        return [image.parent, image.parent / "labels", image.parent.parent / "labels"]
    last = len(parts) - 1 - parts[::-1].index("images")
    return [Path(*parts[:last], "labels", *parts[last + 1 :]), image.parent]


def is_label_file(file: Path) -> bool:
    """Return whether the first row of a text file can be an object, unlike lists of classes or images."""
    try:
        with file.open("rb") as lines:  # in any encoding
            words = lines.readline().split()
    except OSError:
        return False
    return len(words) >= 5 and parse_numbers(words, len(words)) is not None
