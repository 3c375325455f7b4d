"""Label files of YOLO: one for each image, with a row for each object in fractions of the image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.image_finder import FolderIndex
from detr_ft.data.sources.listing import files_in
from detr_ft.data.sources.parsing import parse_numbers, read_lines
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.shapes_to_boxes import box_around

_MAX_FRACTION = 1.5  # larger numbers are no fractions, but pixels
_READING_THREADS = 8  # read headers of images from the disk
_MAX_CHARS_SHOWN = 80  # of a row in a message

log = logging.getLogger(__name__)


@dataclass
class LabelReader:
    """Reads the label files of splits; `keypoints` is the number of keypoint values of a row."""

    names: Mapping[int, str]
    keypoints: int
    problems: list[str] = field(default_factory=list)

    def read_split(self, images: list[Path]) -> list[Record]:
        """Return a record for each image; one without a label file has no objects."""
        with ThreadPoolExecutor(_READING_THREADS) as pool:
            records = list(pool.map(Record.with_size, images, range(len(images))))
        labels = FolderIndex({".txt"})
        num_rows, not_fractions = 0, list[str]()
        for record in records:
            for where, words in _rows(_label_of(record.path, labels)):
                values = self._coordinates(words, where)
                if values is None:
                    continue
                num_rows += 1
                if any(abs(value) > _MAX_FRACTION for value in values):
                    not_fractions.append(where)
                x, y, w, h = _to_box(values)
                box = [x * record.width, y * record.height, w * record.width, h * record.height]
                self._add(record, box, words[0], where)
        if 2 * len(not_fractions) > num_rows:
            self.problems.append(
                f"{not_fractions[0]}: must be fractions of the image, got numbers above {_MAX_FRACTION:g} (in "
                f"{len(not_fractions)} of {num_rows} rows of the split), probably pixels. Divide x and widths by the "
                "image's width, y and heights by its height"
            )
        _log_orphans(images, labels)
        return records

    def _add(self, record: Record, box: list[float], stated: str, where: str) -> None:
        if float(stated) in self.names:
            record.add(box, self.names[int(float(stated))])
        else:
            numbered = f"{min(self.names)} to {max(self.names)}"
            record.add(box, "", fault=f"{where}: class {stated} is not among the names ({numbered})")

    def _coordinates(self, words: list[str], where: str) -> list[float] | None:
        """Return the numbers of a row's box: center and size, or the points of a polygon; None for a problem."""
        values, count = parse_numbers(words, len(words)), len(words)
        got = " ".join(words)[:_MAX_CHARS_SHOWN]
        is_polygon = not self.keypoints and count >= 7 and count % 2 == 1
        if values is not None and (count in (5, 5 + self.keypoints) or is_polygon):
            return values[1:] if is_polygon else values[1:5]
        self.problems.append(f"{where}: {self._expected(count)}, got {got!r}")
        return None

    def _expected(self, count: int) -> str:
        if count == 6:
            return "must be a class and a box, without a sixth number (the confidence of a prediction)"
        if self.keypoints:
            return f"must be a class, a box (4 numbers) and {self.keypoints} numbers of keypoints (kpt_shape)"
        pose = " (for keypoints, set kpt_shape in the YAML file)" if count > 6 and count % 2 == 0 else ""
        return f"must be a class and a box (4 numbers) or a polygon (3 points or more){pose}"


def _to_box(values: list[float]) -> list[float]:
    """Return left, top, width and height of a row's box, or of the box around its polygon."""
    if len(values) > 4:
        return box_around([values[i : i + 2] for i in range(0, len(values), 2)])
    x, y, w, h = values
    return [x - w / 2, y - h / 2, w, h]


def _rows(label: Path | None) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_lines(label) if label else [], start=1):
        if line.strip():
            yield f"{label}, line {number}", line.split()


def _label_of(image: Path, labels: FolderIndex) -> Path | None:
    """Return the label file of an image, None if there is none."""
    files = (labels.by_stem(folder).get(image.stem) for folder in _label_folders(image))
    return next(filter(None, files), None)


def _label_folders(image: Path) -> list[Path]:
    """Return the possible folders of a label file: `labels/` instead of `images/`, and the image's own."""
    parts = list(image.parent.parts)
    if "images" not in parts:
        return [image.parent]
    last = len(parts) - 1 - parts[::-1].index("images")
    return [Path(*parts[:last], "labels", *parts[last + 1 :]), image.parent]


def _log_orphans(images: list[Path], labels: FolderIndex) -> None:
    """Log label files without an image, in the folders with label files of these images."""
    pairs = {(image.parent, folder) for image in images for folder in _label_folders(image) if labels.by_stem(folder)}
    for image_folder, folder in sorted(pairs):
        stems = {path.stem for path in files_in(image_folder, IMAGE_SUFFIXES)}
        orphans = [path for stem, path in labels.by_stem(folder).items() if stem not in stems and _is_label(path)]
        if orphans:
            message = "%s: %d label files have no image and are left out, the first is %s"
            log.warning(message, folder, len(orphans), orphans[0])


def _is_label(file: Path) -> bool:
    """Return whether the first row of a text file can be an object, unlike lists of classes or images."""
    with file.open("rb") as lines:  # in any encoding
        words = lines.readline().split()
    return len(words) >= 5 and parse_numbers(words, len(words)) is not None
