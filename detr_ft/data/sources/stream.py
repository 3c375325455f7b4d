"""Reads a data set row by row, without having it whole: from the Hub, from Parquet files, or what was saved on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, IterableDataset, load_dataset

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.images import NO_SIZE, FileSize, ImageError, file_size
from detr_ft.data.integrity.annotated_size import AnnotatedImage, AnnotatedSizes, as_box, moved_area, unclear_reason
from detr_ft.data.schema import detection_features
from detr_ft.data.sources import saved
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.box_reading import convert, settled_format
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.hub import check_reachable
from detr_ft.data.sources.listing import split_of
from detr_ft.data.sources.parquet import image_places, parquet_files
from detr_ft.data.sources.record import Record, tell_of_troubles
from detr_ft.data.sources.table_columns import Columns, StoredImage
from detr_ft.data.sources.table_rows import loading
from detr_ft.errors import InputError

_LOOKED_AT = 1000  # rows that tell the boxes' format
_READ_ROWS, _READ_BYTES = 16, 1 << 20

log = logging.getLogger(__name__)


def read(name: str, box_format: BoxFormat | None) -> SourceData:
    """Raise InputError: a stream is not read as a whole."""
    raise InputError(
        f"stream:{name}: a stream can't be trained on or examined yet: from Python, detr_ft.data.open_stream gives its "
        f"rows; to have the data set whole, write hub:{name} or its path"
    )


def open_stream(spec: str, base: Path = Path(), box_format: str | None = None) -> dict[str, IterableDataset]:
    """The splits of a data set as streams of rows in the schema; nothing is written to disk.

    `spec` is `stream:` and a name of the Hub (optionally `@REVISION`), a Parquet file, a folder of them, or a folder of
    `save_to_disk`; `?classes=cat,dog` at its end names the classes of data that doesn't. The boxes' format is recognised by
    the first 1,000 rows, unless `box_format` tells it, and by the same rows on which frame boxes were drawn where images
    aren't of the size that is stated: sizes and boxes are those of the upright images. A malformed row, and one whose boxes
    were drawn for nobody knows which size, raises InputError with its number when it is reached.
    Where rows have no `image_id`, it is their number, counted anew by each worker of a DataLoader; that a stated one is
    unique can't be known. What is in memory is a few rows, but of the Hub's Parquet what Arrow reads ahead: about a file.
    """
    name, _, options = spec.removeprefix("stream:").partition("?")
    origin, classes = f"stream:{name}", _classes(options, spec)
    raw, places = _open(name, base, origin)
    splits: dict[str, _Split] = {}
    for word, rows in raw.items():
        split = split_of(word)
        if split is None or split in splits:
            log.warning("%s: split %r is left out", origin, word)
        else:
            splits[split] = _Split.of(rows, f"{origin}, split {word}", places.get(word, ()), classes)
    names = _names([split.columns for split in splits.values()], origin)
    format, frames = _judged(splits.values(), origin, BoxFormat.parse(box_format) if box_format else None)
    return {word: split.converted(names, format, frames) for word, split in splits.items()}


@dataclass(frozen=True)
class _Split:
    """One split's raw stream, with its columns."""

    rows: IterableDataset
    columns: Columns
    every_column: list[str]
    origin: str

    @classmethod
    def of(cls, rows: IterableDataset, origin: str, places: Sequence[Path], classes: tuple[str, ...]) -> _Split:
        with loading(origin):
            # Some formats tell their columns only by a row.
            features = rows.features or Dataset.from_list(list(rows.take(1))).features
        columns = Columns.find(features, origin, places)
        if classes and columns.names is None:
            columns = replace(columns, names=classes)
        if isinstance(features[columns.image], Image):
            rows = rows.cast_column(columns.image, Image(decode=False))
        return cls(rows, columns, list(features), origin)

    def first_records(self, problems: list[str]) -> list[tuple[Record, FileSize]]:
        """The first rows, and the sizes of their files."""
        with loading(self.origin):
            found = [
                (self.columns.record(row, number, self.origin, problems), _size_of(self.columns.stored_image(row)))
                for number, row in enumerate(self.rows.take(_LOOKED_AT))
            ]
        return [(record, size) for record, size in found if record is not None]

    def converted(self, names: list[str], format: BoxFormat, frames: AnnotatedSizes) -> IterableDataset:
        """The stream in the schema."""
        index = {name: number for number, name in enumerate(names)}
        return self.rows.map(
            partial(_convert, columns=self.columns, index=index, origin=self.origin, format=format, frames=frames),
            with_indices=True,
            remove_columns=self.every_column,
            features=detection_features(names),
        )


def _open(name: str, base: Path, origin: str) -> tuple[Mapping[str, IterableDataset], Mapping[str, list[Path]]]:
    """The raw streams by their split's word, and where relative paths of their images may start."""
    path = base / Path(name).expanduser()
    if saved.recognizes(path):
        tables = saved.saved_tables(path, origin)
        places = {word: [path.absolute()] for word in tables}
        return {word: rows.to_iterable_dataset() for word, rows in tables.items()}, places
    if path.exists():
        files = parquet_files(path)
        if not files:
            raise InputError(
                f"{origin}: only Parquet files and folders of save_to_disk can be streamed from this machine"
            )
        with loading(origin):
            return {split: _parquet(paths) for split, paths in files.items()}, image_places(path, files)
    check_reachable(name)
    repository, _, revision = name.partition("@")
    with loading(origin):
        return load_dataset(repository, revision=revision or None, streaming=True), {}


def _parquet(files: Sequence[Path]) -> IterableDataset:
    """The rows of Parquet files; each file can go to a worker of its own."""
    features = Features.from_arrow_schema(pq.read_schema(files[0]))
    undecoded = {name: Image(decode=False) if isinstance(one, Image) else one for name, one in features.items()}
    names = [str(file) for file in files]
    return IterableDataset.from_generator(_parquet_rows, features=Features(undecoded), gen_kwargs={"files": names})


def _parquet_rows(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    # `datasets` reads Parquet by Arrow's scanner, whose threads run ahead by a whole file.
    for file in files:
        with pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False) as table:
            for batch in table.iter_batches(_READ_ROWS):
                yield from batch.to_pylist()


def _classes(options: str, spec: str) -> tuple[str, ...]:
    pairs = parse_qsl(options, keep_blank_values=True)
    unknown = [key for key, _ in pairs if key != "classes"]
    if unknown or (options and not pairs):
        raise InputError(
            f"{spec}: unknown option {(unknown or [options])[0]!r}; there is classes, as in ?classes=cat,dog"
        )
    return tuple(name.strip() for _, value in pairs for name in value.split(",") if name.strip())


def _names(columns: Sequence[Columns], origin: str) -> list[str]:
    if not columns:
        raise InputError(f"{origin}: no split of it is called train, validation or test")
    nameless = [one.category for one in columns if one.names is None]
    if nameless:
        raise InputError(
            f"{origin}: {nameless[0]} doesn't name the classes, and a stream can't be searched for them: "
            f"write them in the order of their numbers, {origin}?classes=cat,dog"
        )
    return list(dict.fromkeys(name for one in columns for name in one.names or ()))


def _judged(splits: Iterable[_Split], origin: str, format: BoxFormat | None) -> tuple[BoxFormat, AnnotatedSizes]:
    """The boxes' format, and on which frame they were drawn, by the first rows of every split."""
    problems: list[str] = []
    first = [one for split in splits for one in split.first_records(problems)]
    raise_all(problems)
    records = [record for record, _ in first]
    tell_of_troubles(records)
    settled = settled_format(records, f"{origin}, first {len(records):,} rows", format)
    return settled, AnnotatedSizes.infer(_in_pixels(record, size, settled) for record, size in first)


def _convert(
    row: Mapping[str, Any],
    number: int,
    columns: Columns,
    index: Mapping[str, int],
    origin: str,
    format: BoxFormat,
    frames: AnnotatedSizes,
) -> dict[str, Any]:
    problems: list[str] = []
    record = columns.record(row, number, origin, problems)
    if record is None or problems:
        raise InputError(problems)
    image = columns.stored_image(row)
    _move(record, _in_pixels(record, _size_of(image), format), frames, f"{origin}, row {number}")
    return {
        "image": image,
        "image_id": record.image_id,
        "width": record.width,
        "height": record.height,
        "objects": record.objects(index),
    }


def _size_of(image: StoredImage | None) -> FileSize:
    """The size of an image's file; none of one that can't be read: whoever decodes it says so."""
    try:
        return file_size(image) if image else NO_SIZE
    except ImageError:
        return NO_SIZE


def _in_pixels(record: Record, size: FileSize, format: BoxFormat) -> AnnotatedImage:
    """Convert a record's boxes from a format, in place, and give it as annotated.

    Fractions need no stated size: they are of the image as whoever drew the boxes saw it, upright.
    """
    if format.unit == "fractions" and size != NO_SIZE:
        record.width, record.height = size.upright
    convert(record, format)
    return AnnotatedImage((record.width, record.height), list(map(as_box, record.boxes)), size)


def _move(record: Record, one: AnnotatedImage, frames: AnnotatedSizes, where: str) -> None:
    """Bring a record's size and boxes, in place, onto its image. Raises InputError where it can't be known how."""
    fit = frames.fit(one)
    if fit is None:
        raise InputError(f"{where}: {unclear_reason(one)}")
    if not fit.how or one.file == NO_SIZE:
        return
    moved = [fit.move(box) for box in one.boxes]
    areas = zip(record.areas, one.boxes, moved, strict=True)
    record.areas = [area if area is None else moved_area(area, before, after) for area, before, after in areas]
    record.boxes = [list(box) for box in moved]
    record.width, record.height = one.file.upright
