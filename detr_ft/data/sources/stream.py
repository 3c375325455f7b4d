"""Reads a data set row by row, without having it whole: from the Hub, from Parquet files, or what was saved on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from datasets import Dataset, Image, IterableDataset, load_dataset

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.schema import detection_features
from detr_ft.data.sources.boxes import convert, settled_format
from detr_ft.data.sources.columns import Columns
from detr_ft.data.sources.hub import check_reachable
from detr_ft.data.sources.parquet import image_places, is_saved, parquet_files, saved_tables
from detr_ft.data.sources.records import Record, raise_all, split_of
from detr_ft.data.sources.rows import loading
from detr_ft.errors import UserError

_LOOKED_AT = 1000  # rows that tell the boxes' format

log = logging.getLogger(__name__)


def open_stream(spec: str, base: Path = Path(), box_format: str | None = None) -> dict[str, IterableDataset]:
    """The splits of a data set as streams of rows in the schema; nothing is downloaded whole, and nothing kept.

    `spec` is `stream:` and a name of the Hub (optionally `@REVISION`), a Parquet file, a folder of them, or a folder of
    `save_to_disk`; `?classes=cat,dog` at its end names the classes of data that doesn't. The boxes' format is recognised by
    the first 1,000 rows, unless `box_format` tells it. A malformed row raises UserError with its number when it is reached.
    Where rows have no `image_id`, it is their number; that a stated one is unique can't be known.
    """
    name, _, options = spec.removeprefix("stream:").partition("?")
    origin, classes = f"stream:{name}", _classes(options, spec)
    raw, places = _open(name, base, origin)
    tables: dict[str, IterableDataset] = {}
    columns: dict[str, Columns] = {}
    for word, rows in raw.items():
        split = split_of(word)
        if split is None or split in tables:
            log.warning("%s: split %r is left out", origin, word)
            continue
        with loading(origin):
            features = rows.features or Dataset.from_list(list(rows.take(1))).features
        found = Columns.find(features, f"{origin}, split {word}", places.get(word, ()))
        columns[split] = found.with_names(classes) if classes and found.names is None else found
        undecoded = isinstance(features[found.image], Image)
        tables[split] = rows.cast_column(found.image, Image(decode=False)) if undecoded else rows
    names = _names(columns, origin)
    format = _format(tables, columns, origin, BoxFormat.parse(box_format) if box_format else None)
    return {
        split: _converted(rows, columns[split], names, f"{origin}, split {split}", format)
        for split, rows in tables.items()
    }


def _open(name: str, base: Path, origin: str) -> tuple[Mapping[str, IterableDataset], Mapping[str, list[Path]]]:
    """The raw streams by their split's word, and where relative paths of their images may start."""
    path = base / Path(name).expanduser()
    if path.is_dir() and is_saved(path):
        saved = saved_tables(path, origin)
        return {word: rows.to_iterable_dataset() for word, rows in saved.items()}, {
            word: [path.absolute()] for word in saved
        }
    if path.exists():
        files = parquet_files(path)
        if not files:
            raise UserError(
                f"{origin}: only Parquet files and folders of save_to_disk can be streamed from this machine"
            )
        with loading(origin):
            listed = {split: list(map(str, paths)) for split, paths in files.items()}
            return load_dataset("parquet", data_files=listed, streaming=True), image_places(path, files)
    check_reachable(name)
    repository, _, revision = name.partition("@")
    with loading(origin):
        return load_dataset(repository, revision=revision or None, streaming=True), {}


def _classes(options: str, spec: str) -> tuple[str, ...]:
    pairs = parse_qsl(options, keep_blank_values=True)
    unknown = [key for key, _ in pairs if key != "classes"]
    if unknown or (options and not pairs):
        raise UserError(
            f"{spec}: unknown option {(unknown or [options])[0]!r}; there is classes, as in ?classes=cat,dog"
        )
    return tuple(name.strip() for _, value in pairs for name in value.split(",") if name.strip())


def _names(columns: Mapping[str, Columns], origin: str) -> list[str]:
    if not columns:
        raise UserError(f"{origin}: no split of it is called train, validation or test")
    nameless = [one.category for one in columns.values() if one.names is None]
    if nameless:
        raise UserError(
            f"{origin}: {nameless[0]} doesn't name the classes, and a stream can't be searched for them: "
            f"write them in the order of their numbers, {origin}?classes=cat,dog"
        )
    return list(dict.fromkeys(name for one in columns.values() for name in one.names or ()))


def _format(
    tables: Mapping[str, IterableDataset], columns: Mapping[str, Columns], origin: str, format: BoxFormat | None
) -> BoxFormat:
    """The boxes' format by the first rows of every split, of which only boxes and sizes are kept."""
    records: list[Record] = []
    for split, rows in tables.items():
        problems: list[str] = []
        with loading(origin):
            for number, row in enumerate(islice(rows, _LOOKED_AT)):
                record = columns[split].record(row, number, f"{origin}, split {split}", problems)
                records += [record] if record else []
        raise_all(problems)
    log.info("%s: the boxes' format is told by the first %s rows of a split", origin, f"{_LOOKED_AT:,}")
    return settled_format(records, origin, format)


def _converted(
    rows: IterableDataset, columns: Columns, names: list[str], origin: str, format: BoxFormat
) -> IterableDataset:
    return rows.map(
        partial(
            _convert, columns=columns, index={name: i for i, name in enumerate(names)}, origin=origin, format=format
        ),
        with_indices=True,
        remove_columns=rows.column_names,
        features=detection_features(names),
    )


def _convert(
    row: Mapping[str, Any], number: int, columns: Columns, index: Mapping[str, int], origin: str, format: BoxFormat
) -> dict[str, Any]:
    problems: list[str] = []
    record = columns.record(row, number, origin, problems)
    raise_all(problems)
    if record is None:
        raise UserError(f"{origin}, row {number}: there is no image")
    convert(record, format)
    return {
        "image": columns.stored_image(row),
        "image_id": record.image_id,
        "width": record.width,
        "height": record.height,
        "objects": record.objects(index),
    }
