"""Read a data set row by row, from the Hub, from Parquet files or from a folder of `save_to_disk`."""

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
from detr_ft.data.sources.box_reading import choose_format, convert_record
from detr_ft.data.sources.conversion import log_image_errors
from detr_ft.data.sources.hub import check_reachable
from detr_ft.data.sources.listing import split_of
from detr_ft.data.sources.parquet import image_folders, parquet_files
from detr_ft.data.sources.problems import raise_all
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.table_columns import Columns, StoredImage
from detr_ft.data.sources.table_rows import load_errors
from detr_ft.errors import InputError

_SAMPLE_ROWS = 1000  # from which the format and the frame of boxes are inferred
_BATCH_ROWS, _BUFFER_BYTES = 16, 1 << 20

log = logging.getLogger(__name__)


def read(name: str, box_format: BoxFormat | None) -> SourceData:
    """Raise InputError: a stream can't be read as a whole."""
    raise InputError(
        f"stream:{name}: a stream is read row by row, from Python, with detr_ft.data.open_stream. "
        f"To read the whole data set, write hub:{name} or its path"
    )


def open_stream(spec: str, base: Path = Path(), box_format: str | None = None) -> dict[str, IterableDataset]:
    """Open the splits of a data set as streams of rows in the schema, without writing to disk.

    `spec` is `stream:` and a name of the Hub (optionally `@REVISION`), a Parquet file, a folder of them, or a folder of
    `save_to_disk`; `?classes=cat,dog` at its end names the classes of data without class names. The format of the boxes
    is `box_format`, by default inferred from the first 1,000 rows. The frame of boxes of images with another size than
    stated is inferred from the same rows. Sizes and boxes of rows are those of upright images. Reading a malformed row,
    or one whose boxes may refer to either size, raises InputError with its number. Rows without `image_id` get their
    number, which each worker of a DataLoader counts from 0; stated ids may repeat. A few rows are in memory, and of the
    Hub's Parquet files as much as Arrow reads ahead: about one file.
    """
    name, _, options = spec.removeprefix("stream:").partition("?")
    origin, classes = f"stream:{name}", _classes(options, spec)
    raw, folders = _open(name, base, origin)
    splits: dict[str, _Split] = {}
    for word, rows in raw.items():
        split = split_of(word)
        if split is None or split in splits:
            log.warning("%s: split %r is left out", origin, word)
        else:
            splits[split] = _Split.of(rows, f"{origin}, split {word}", folders.get(word, ()), classes)
    names = _names([split.columns for split in splits.values()], origin)
    format, frames = _infer(splits.values(), origin, BoxFormat.parse(box_format) if box_format else None)
    return {word: split.to_schema(names, format, frames) for word, split in splits.items()}


@dataclass(frozen=True)
class _Split:
    """The raw stream of a split and its columns."""

    rows: IterableDataset
    columns: Columns
    all_columns: list[str]
    origin: str

    @classmethod
    def of(cls, rows: IterableDataset, origin: str, folders: Sequence[Path], classes: tuple[str, ...]) -> _Split:
        with load_errors(origin):
            # Some formats have features only once a row has been read.
            features = rows.features or Dataset.from_list(list(rows.take(1))).features
        columns = Columns.find(features, origin, folders)
        if classes and columns.names is None:
            columns = replace(columns, names=classes)
        if isinstance(features[columns.image], Image):
            rows = rows.cast_column(columns.image, Image(decode=False))
        return cls(rows, columns, list(features), origin)

    def first_records(self) -> list[tuple[Record, FileSize]]:
        """Return the records of the first rows and the sizes of their image files."""
        with load_errors(self.origin):
            pairs = [
                (self.columns.record(row, number, self.origin), _size_of(self.columns.stored_image(row)))
                for number, row in enumerate(self.rows.take(_SAMPLE_ROWS))
            ]
        return [(record, size) for record, size in pairs if record is not None]

    def to_schema(self, names: list[str], format: BoxFormat, frames: AnnotatedSizes) -> IterableDataset:
        """Return the stream in the schema."""
        class_indices = {name: index for index, name in enumerate(names)}
        return self.rows.map(
            partial(
                _convert,
                columns=self.columns,
                class_indices=class_indices,
                origin=self.origin,
                format=format,
                frames=frames,
            ),
            with_indices=True,
            remove_columns=self.all_columns,
            features=detection_features(names),
        )


def _open(name: str, base: Path, origin: str) -> tuple[Mapping[str, IterableDataset], Mapping[str, list[Path]]]:
    """Return the raw streams by the names of their splits, and the starts of relative image paths."""
    path = base / Path(name).expanduser()
    if saved.recognizes(path):
        tables = saved.saved_tables(path, origin)
        folders = {word: [path.absolute()] for word in tables}
        return {word: rows.to_iterable_dataset() for word, rows in tables.items()}, folders
    if path.exists():
        files = parquet_files(path)
        if not files:
            raise InputError(
                f"{origin}: must be Parquet files or a folder of save_to_disk to be streamed from this machine"
            )
        with load_errors(origin):
            return {split: _parquet(paths) for split, paths in files.items()}, image_folders(path, files)
    check_reachable(name)
    repository, _, revision = name.partition("@")
    with load_errors(origin):
        return load_dataset(repository, revision=revision or None, streaming=True), {}


def _parquet(files: Sequence[Path]) -> IterableDataset:
    """Return the rows of Parquet files as a stream with one shard for each file."""
    features = Features.from_arrow_schema(pq.read_schema(files[0]))
    undecoded = {name: Image(decode=False) if isinstance(value, Image) else value for name, value in features.items()}
    names = [str(file) for file in files]
    return IterableDataset.from_generator(_parquet_rows, features=Features(undecoded), gen_kwargs={"files": names})


def _parquet_rows(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    # The scanner of Arrow, which `datasets` uses, reads a whole file ahead.
    for file in files:
        with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table:
            for batch in table.iter_batches(_BATCH_ROWS):
                yield from batch.to_pylist()


def _classes(options: str, spec: str) -> tuple[str, ...]:
    pairs = parse_qsl(options, keep_blank_values=True)
    unknown = [key for key, _ in pairs if key != "classes"]
    if unknown or (options and not pairs):
        raise InputError(
            f"{spec}: unknown option {(unknown or [options])[0]!r}, must be classes, as in ?classes=cat,dog"
        )
    return tuple(name.strip() for _, value in pairs for name in value.split(",") if name.strip())


def _names(columns: Sequence[Columns], origin: str) -> list[str]:
    if not columns:
        raise InputError(f"{origin}: has no split train, validation or test")
    without_names = [split.category for split in columns if split.names is None]
    if without_names:
        raise InputError(
            f"{origin}: {without_names[0]} has no class names. Write them in the order of their numbers, as in "
            f"{origin}?classes=cat,dog"
        )
    return list(dict.fromkeys(name for split in columns for name in split.names or ()))


def _infer(splits: Iterable[_Split], origin: str, format: BoxFormat | None) -> tuple[BoxFormat, AnnotatedSizes]:
    """Return the format and the frames of boxes, inferred from the first rows of every split."""
    first = [pair for split in splits for pair in split.first_records()]
    records = [record for record, _ in first]
    raise_all([message for record in records for message in record.unreadable])
    log_image_errors(records)
    chosen = choose_format(records, f"{origin}, first {len(records):,} rows", format)
    return chosen, AnnotatedSizes.infer(_in_pixels(record, size, chosen) for record, size in first)


def _convert(
    row: Mapping[str, Any],
    number: int,
    columns: Columns,
    class_indices: Mapping[str, int],
    origin: str,
    format: BoxFormat,
    frames: AnnotatedSizes,
) -> dict[str, Any]:
    record = columns.record(row, number, origin)
    if record.unreadable:
        raise InputError(record.unreadable)
    image = columns.stored_image(row)
    _move(record, _in_pixels(record, _size_of(image), format), frames, f"{origin}, row {number}")
    return {
        "image": image,
        "image_id": record.image_id,
        "width": record.width,
        "height": record.height,
        "objects": record.objects(class_indices),
    }


def _size_of(image: StoredImage | None) -> FileSize:
    """Return the size of an image file, NO_SIZE if it can't be read: decoding reports the error."""
    try:
        return file_size(image) if image else NO_SIZE
    except ImageError:
        return NO_SIZE


def _in_pixels(record: Record, size: FileSize, format: BoxFormat) -> AnnotatedImage:
    """Convert a record's boxes to pixels in place, and return the image as annotated.

    Fractions refer to the upright image, whatever size is stated.
    """
    if format.unit == "fractions" and size != NO_SIZE:
        record.width, record.height = size.upright
    convert_record(record, format)
    return AnnotatedImage((record.width, record.height), list(map(as_box, record.boxes)), size)


def _move(record: Record, image: AnnotatedImage, frames: AnnotatedSizes, where: str) -> None:
    """Move a record's size and boxes in place to its image. Raises InputError if their frame is unclear."""
    rescaling = frames.fit(image)
    if rescaling is None:
        raise InputError(f"{where}: {unclear_reason(image)}")
    if not rescaling.how or image.file == NO_SIZE:
        return
    moved = [rescaling.move(box) for box in image.boxes]
    areas = zip(record.areas, image.boxes, moved, strict=True)
    record.areas = [area if area is None else moved_area(area, before, after) for area, before, after in areas]
    record.boxes = [list(box) for box in moved]
    record.width, record.height = image.file.upright
