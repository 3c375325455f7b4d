"""Read WebDataset: tar files ("shards") with `KEY.jpg` and `KEY.json` for each image.

A key ends at the first dot. Several images of a key that have JSON files of their own, as `frame.0.jpg` and `frame.0.json`,
are samples of their own.

The JSON has one of these forms, with `width` and `height` of the image optional:

- `{"objects": {"bbox": [...], "category": [...]}}`, or a list of mappings with these keys instead of the mapping of lists;
- the lists `bbox` and `category` at the top level;
- as in COCO, `{"annotations": [{"bbox": [...], "category_id": 1}, ...], "categories": [{"id": 1, "name": "cat"}, ...]}`, or
  the list of annotations alone.
"""

from __future__ import annotations

import logging
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.box_reading import convert_boxes
from detr_ft.data.sources.conversion import sort_naturally, to_source_data, used_names
from detr_ft.data.sources.listing import files_below, files_by_split, is_skipped
from detr_ft.data.sources.parsing import decode_text, parse_json
from detr_ft.data.sources.problems import Problem
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.table_columns import BOX_KEYS, CATEGORY_KEYS, add_objects, as_columns, as_lists
from detr_ft.errors import InputError

_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_CLASS_KEYS = ("category_name", "class_name", *CATEGORY_KEYS, "name")
_SAMPLE_MEMBERS = 50
_TAR_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError)

_Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a path is a tar file with images and JSON files, or a folder with one."""
    return any(map(_has_samples, _shards(path)[:1]))


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a tar file, or those below a folder; classes are sorted.

    The images are read into memory. Boxes are in `box_format`, by default in the recognized one. Splits are in the names of
    the tar files or of their folders. An image without a JSON file is unlabeled.
    """
    files = {"train": [path]} if path.is_file() else files_by_split(_shards(path), path)
    if not any(files.values()):
        raise InputError(f"{path}: no tar file of WebDataset, expected for example train-000000.tar")
    readers = {split: [_Reader(file) for file in some] for split, some in files.items()}
    splits = {split: [record for reader in some for record in reader.read()] for split, some in readers.items()}
    for records in splits.values():
        for index, record in enumerate(records):
            record.image_id = index
    convert_boxes(
        [record for records in splits.values() for record in records], f"webdataset:{path}", options.box_format
    )
    return to_source_data(
        splits,
        sort_naturally(used_names(splits) - {""}),
        path,
        [problem for some in readers.values() for reader in some for problem in reader.problems],
        split_by="the names of the tar files and folders" if len(files) > 1 else None,
    )


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.lower().endswith(_SUFFIXES) else []
    return [file for file in files_below(path, {".tar", ".gz", ".tgz"}) if file.name.lower().endswith(_SUFFIXES)]


def _has_samples(file: Path) -> bool:
    """Return whether the first members of a tar file are images and JSON files."""
    try:
        with tarfile.open(file) as tar:
            suffixes = {PurePosixPath(member.name).suffix.lower() for member in islice(tar, _SAMPLE_MEMBERS)}
    except _TAR_ERRORS:
        return False
    return ".json" in suffixes and bool(suffixes & IMAGE_SUFFIXES)


@dataclass
class _Sample:
    """The images and JSON files of a key, by their names. `fault` is why their relation is unclear."""

    images: dict[str, bytes] = field(default_factory=dict)
    annotations: dict[str, bytes] = field(default_factory=dict)
    fault: str = ""


def _split(key: str, sample: _Sample) -> Iterator[tuple[str, _Sample]]:
    """Yield the samples of a key: one, or one for each image with another name up to the suffix.

    An image that adds to the name of another one, as `KEY.mask.png` to `KEY.jpg`, belongs to it unless it has a JSON file.
    """
    images, annotations = _by_stem(sample.images), _by_stem(sample.annotations)
    stems = [stem for stem in images if stem in annotations or not any(_extends(stem, other) for other in images)]
    if len(stems) < 2:
        yield key, sample
        return
    others = [stem for stem in annotations if stem not in images]
    owners = {other: max((stem for stem in stems if _extends(other, stem)), key=len, default=None) for other in others}
    shared = [other for other in others if any(_extends(stem, other) and stem not in annotations for stem in stems)]
    for stem in stems:
        inside = annotations.get(stem) or {
            name: content
            for other, owner in owners.items()
            if owner == stem
            for name, content in annotations[other].items()
        }
        unclear = [] if inside else [name for other in shared if _extends(stem, other) for name in annotations[other]]
        fault = f"{unclear[0]} belongs to {len(stems)} images. Write a JSON file for each" if unclear else ""
        yield stem, _Sample(images[stem], inside, fault)
    for other, owner in owners.items():
        if owner is None and other not in shared:
            yield other, _Sample({}, annotations[other])


def _extends(stem: str, other: str) -> bool:
    """Return whether a name is another one with more parts after a dot."""
    return stem.startswith(f"{other}.")


def _by_stem(members: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Return members by their names without the last suffix."""
    stems: dict[str, dict[str, bytes]] = {}
    for name, content in members.items():
        stems.setdefault(name.rpartition(".")[0], {})[name] = content
    return stems


@dataclass
class _Reader:
    """Converts the samples of a tar file to records; `problems` belong to no record."""

    file: Path
    problems: list[Problem] = field(default_factory=list)

    def read(self) -> list[Record]:
        """Return a record for each image, as far as the file can be read."""
        samples = (pair for key, group in self._samples().items() for pair in _split(key, group))
        records = (self._record(key, sample) for key, sample in samples)
        return [record for record in records if record]

    def _samples(self) -> dict[str, _Sample]:
        samples: dict[str, _Sample] = {}
        try:
            for name, content in self._members():
                path = PurePosixPath(name)
                key = str(path.parent / path.name.partition(".")[0])
                sample = samples.setdefault(key, _Sample())
                members = sample.annotations if path.suffix.lower() == ".json" else sample.images
                if name in members:
                    message = f"{self.file}: image {key!r}: {name} occurs twice; the last one is used"
                    self.problems.append(Problem("lost annotation", message))
                members[name] = content
        except _TAR_ERRORS as error:
            reason = str(error).partition("\n")[0].rstrip(":")
            message = f"{self.file}: can't be read after {len(samples)} samples ({reason})"
            self.problems.append(Problem("unreadable annotation", message))
        return samples

    def _members(self) -> Iterator[tuple[str, bytes]]:
        """Yield the names and contents of images and JSON files."""
        with tarfile.open(self.file) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or any(map(is_skipped, path.parts)):
                    continue
                if path.suffix.lower() == ".json" or path.suffix.lower() in IMAGE_SUFFIXES:
                    stream = tar.extractfile(member)
                    yield member.name.removeprefix("./"), stream.read() if stream else b""

    def _record(self, key: str, sample: _Sample) -> Record | None:
        where = f"{self.file}: image {key!r}"
        image, annotations = _plainest(sample.images), _plainest(sample.annotations)
        row, message = _parse(annotations)
        if image is None:
            reason = "has a JSON file and no image"
            self.problems.append(Problem("lost annotation", f"{where}: {reason}", count=_num_objects(row)))
            return None
        name, content = image
        stated = row.get("image") if isinstance(row, dict) and isinstance(row.get("image"), dict) else row
        sides = (stated.get("width"), stated.get("height")) if isinstance(stated, dict) else (None, None)
        record = Record.with_size(self.file.absolute() / name, 0, *sides, image={"path": name, "bytes": content})
        record.content = content
        record.unlabeled = annotations is None and not sample.fault
        if message or sample.fault:
            record.unreadable.append(f"{where}: {message or sample.fault}")
        elif annotations is not None:
            _add_objects(record, row, where)
        return record


def _plainest(members: Mapping[str, bytes]) -> tuple[str, bytes] | None:
    """Return the member with the fewest suffixes, JPEG first: `KEY.jpg` before `KEY.mask.png`."""
    return min(members.items(), key=lambda item: _order(PurePosixPath(item[0])), default=None)


def _order(path: PurePosixPath) -> tuple[int, bool]:
    return path.name.count("."), path.suffix.lower() not in (".jpg", ".jpeg")


def _parse(member: tuple[str, bytes] | None) -> tuple[object, str]:
    """Return the value of a JSON file, and the reason if it can't be parsed."""
    if member is None:
        return None, ""
    try:
        return parse_json(decode_text(member[1])), ""
    except ValueError as error:  # also UnicodeDecodeError
        return None, f"{member[0]}: {error}"


def _num_objects(row: object) -> int:
    objects = _objects(row)
    return max([1, *(len(values) for values in objects.values() if isinstance(values, list))]) if objects else 1


def _add_objects(record: Record, row: object, where: str) -> None:
    objects = _objects(row)
    if objects is None:
        needs = "objects or annotations with bbox and category"
        record.unreadable.append(f"{where}: the JSON must have {needs}")
        return
    box_key = next((key for key in BOX_KEYS if key in objects), BOX_KEYS[0])
    class_key = next((key for key in _CLASS_KEYS if key in objects), CATEGORY_KEYS[0])
    names = _category_names(row)
    stated = objects.get(class_key)
    if names and isinstance(stated, list):
        objects = {**objects, class_key: [names.get(str(value)) for value in stated]}
    add_objects(record, objects, (box_key, class_key), None, where)


def _objects(row: object) -> dict[str, list[object]] | None:
    """Return the objects as lists by their keys; None if the JSON has none of the accepted forms."""
    if isinstance(row, dict):
        stated = next((row[key] for key in ("objects", "annotations") if key in row), as_columns(row) or None)
        stated = [] if stated is None and ("objects" in row or "annotations" in row) else stated
    else:
        stated = row
    lists = as_lists(stated) if isinstance(stated, (dict, list)) else None
    return lists if isinstance(lists, dict) else None


def _category_names(row: object) -> dict[str, str]:
    """Return the class names by their ids as text, of COCO's categories; empty without them."""
    rows = row.get("categories") if isinstance(row, dict) else None
    pairs = (
        [(item.get("id"), item.get("name")) for item in rows if isinstance(item, dict)]
        if isinstance(rows, list)
        else []
    )
    return {str(number): name for number, name in pairs if isinstance(name, str) and name}
