"""The label files of YOLO: one beside each image, a row for each object, in fractions of the image."""

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

_FAR_BEYOND = 1.5  # of a number that should be a fraction
_POOL = 8  # threads; they wait for the disk

log = logging.getLogger(__name__)


@dataclass
class LabelReader:
    """Reads the label files of splits; `keypoints` is how many numbers of a row follow its box, for pose data."""

    names: Mapping[int, str]
    keypoints: int
    problems: list[str] = field(default_factory=list)

    def read_split(self, images: list[Path]) -> list[Record]:
        """A record for each image; one without a label file is background."""
        with ThreadPoolExecutor(_POOL) as pool:
            records = list(pool.map(Record.sized, images, range(len(images))))
        labels = FolderIndex({".txt"})
        rows, beyond = 0, list[str]()
        for record in records:
            for where, words in _rows(_label_of(record.path, labels)):
                values = self._coordinates(words, where)
                if values is None:
                    continue
                rows += 1
                if any(abs(value) > _FAR_BEYOND for value in values):
                    beyond.append(where)
                x, y, w, h = _whole_box(values)
                box = [x * record.width, y * record.height, w * record.width, h * record.height]
                self._add(record, box, words[0], where)
        if 2 * len(beyond) > rows:
            self.problems.append(
                f"{beyond[0]}: numbers above {_FAR_BEYOND:g}, as in {len(beyond)} of {rows} rows of its split: they look "
                "like pixels, but YOLO rows are fractions: divide x and widths by the image's width, y and heights by "
                "its height"
            )
        _tell_of_orphans(images, labels)
        return records

    def _add(self, record: Record, box: list[float], stated: str, where: str) -> None:
        if float(stated) in self.names:
            record.add(box, self.names[int(float(stated))])
        else:
            numbered = f"{min(self.names)} to {max(self.names)}"
            record.add(box, "", fault=f"{where}: class {stated} isn't among the names ({numbered})")

    def _coordinates(self, words: list[str], where: str) -> list[float] | None:
        """The numbers of a row that make its box: centre and size, or a polygon's points; None with a problem."""
        values, count = parse_numbers(words, len(words)), len(words)
        got = " ".join(words)[:80]
        is_polygon = not self.keypoints and count >= 7 and count % 2 == 1
        if values is not None and (count in (5, 5 + self.keypoints) or is_polygon):
            return values[1:] if is_polygon else values[1:5]
        self.problems.append(f"{where}: {self._expected(count)}, got {got!r}")
        return None

    def _expected(self, count: int) -> str:
        if count == 6:
            return "six columns are a prediction, whose last one is its confidence; labels are a class and a box"
        if self.keypoints:
            return f"expected a class, a box (4 numbers) and, as kpt_shape says, {self.keypoints} numbers of keypoints"
        pose = "; rows of keypoints need kpt_shape in the YAML file" if count > 6 and count % 2 == 0 else ""
        return f"expected a class and a box (4 numbers) or a polygon (3 points or more){pose}"


def _whole_box(values: list[float]) -> list[float]:
    """Left, top, width and height of a row's box, or of the box around its polygon."""
    if len(values) > 4:
        return box_around([values[i : i + 2] for i in range(0, len(values), 2)])
    x, y, w, h = values
    return [x - w / 2, y - h / 2, w, h]


def _rows(label: Path | None) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_lines(label) if label else [], start=1):
        if line.strip():
            yield f"{label}, line {number}", line.split()


def _label_of(image: Path, labels: FolderIndex) -> Path | None:
    """The image's text file: in `labels/` where the path says `images/`, else beside it; None if there is none."""
    found = (labels.by_stem(folder).get(image.stem) for folder in folders(image))
    return next(filter(None, found), None)


def folders(image: Path) -> list[Path]:
    """Where the label file of an image may lie, the likelier place first."""
    parts = list(image.parent.parts)
    if "images" not in parts:
        return [image.parent]
    last = len(parts) - 1 - parts[::-1].index("images")
    return [Path(*parts[:last], "labels", *parts[last + 1 :]), image.parent]


def _tell_of_orphans(images: list[Path], labels: FolderIndex) -> None:
    """Label files whose image isn't there, in the folders that hold label files of these images."""
    homes = {(image.parent, folder) for image in images for folder in folders(image) if labels.by_stem(folder)}
    for pictures, folder in sorted(homes):
        stems = {path.stem for path in files_in(pictures, IMAGE_SUFFIXES)}
        left = [path for stem, path in labels.by_stem(folder).items() if stem not in stems and _is_label(path)]
        if left:
            log.warning(
                "%s: %d label files have no image and are left out, the first is %s", folder, len(left), left[0]
            )


def _is_label(file: Path) -> bool:
    """Whether a text file's first row could be an object: lists of classes and of images lie about as well."""
    with file.open("rb") as lines:  # in whatever encoding
        words = lines.readline().split()
    return len(words) >= 5 and parse_numbers(words, len(words)) is not None
