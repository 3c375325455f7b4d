"""Convert tables of `datasets` to the schema, without decoding or copying images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from datasets import Dataset, DatasetDict, Image, concatenate_datasets
from datasets.exceptions import DatasetsError

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.schema import SPLITS, detection_features
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.box_reading import choose_format, convert_record
from detr_ft.data.sources.conversion import log_image_errors, problems_of, schema_columns, sort_naturally, used_names
from detr_ft.data.sources.image_finder import first_file
from detr_ft.data.sources.listing import split_of
from detr_ft.data.sources.parsing import shown
from detr_ft.data.sources.problems import Problem, summarize
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.table_columns import SIZE_KEYS, Columns, as_lists
from detr_ft.errors import InputError

_SAMPLE_ROWS = 20
_MAX_CLASSES_SHOWN = 12

log = logging.getLogger(__name__)


@contextmanager
def load_errors(origin: str) -> Iterator[None]:
    """Turn the exceptions of `datasets` for unreadable data into an InputError with the origin."""
    try:
        yield
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        raise InputError(f"{origin}: can't be loaded ({cause})") from error


def to_schema(
    raw: Mapping[str, Dataset],
    origin: str,
    format: BoxFormat | None = None,
    image_folders: Mapping[str, Sequence[Path]] = MappingProxyType({}),
) -> SourceData:
    """Convert detection tables to the schema.

    Other splits than train, validation and test are left out, with a problem. The format of the boxes is by default
    recognized. Relative paths of a split's images start at one of its `image_folders`. Raises InputError for tables
    without images and objects.
    """
    tables: dict[str, _Table] = {}
    problems: list[Problem] = []
    for word, rows in raw.items():
        split = split_of(word)
        if split is None or split in tables or not len(rows):
            message = f"{origin}: the split {shown(word)} of {len(rows)} images is left out"
            problems.append(Problem("no split", message, count=count_objects(rows)))
        else:
            where = f"{origin}, split {word}"
            columns = Columns.find(rows.features, where, image_folders.get(word, ()))
            tables[split] = _Table(rows, columns, where)
    if not tables:
        raise InputError(f"{origin}: no split train, validation or test with images, only {', '.join(raw) or 'none'}")
    tables = {split: tables[split] for split in SPLITS if split in tables}
    records = {split: table.records() for split, table in tables.items()}
    log_image_errors(record for split in records.values() for record in split)
    chosen = choose_format([record for split in records.values() for record in split], origin, format)
    if chosen.unit == "fractions":
        records = {split: table.without_stated_sizes().records() for split, table in tables.items()}
    for record in (record for split in records.values() for record in split):
        convert_record(record, chosen)
    names = _names([table.columns for table in tables.values()], records, origin)
    data = DatasetDict({split: table.convert(records[split], names) for split, table in tables.items()})
    return SourceData(data, problems=(*problems, *problems_of(records)))


def count_objects(rows: Dataset) -> int:
    """Return the number of boxes in a table, 0 without the columns of a detection data set."""
    try:
        columns = Columns.find(rows.features, "")
    except InputError:
        return 0
    cells = rows.with_format(None).select_columns([columns.objects or columns.boxes])
    lists = (as_lists(row[columns.objects]) if columns.objects else row for row in cells)
    return sum(len(objects.get(columns.boxes) or ()) for objects in lists if isinstance(objects, Mapping))


def _names(columns: Sequence[Columns], records: Mapping[str, Sequence[Record]], origin: str) -> list[str]:
    """Return the classes of the features in their order, then other classes that occur, sorted."""
    named = dict.fromkeys(name for split in columns for name in split.names or ())
    others = sort_naturally(used_names(records) - named.keys() - {""})
    if others and all(name.isdecimal() for name in others):
        log.info("%s: classes are numbers without names: %s", origin, ", ".join(others[:_MAX_CLASSES_SHOWN]))
    if not named and not others:
        problems = summarize([problem.message for problem in problems_of(records)])
        raise InputError([f"{origin}: must have an object, or name a class", *problems])
    return [*named, *others]


@dataclass
class _Table:
    rows: Dataset
    columns: Columns
    origin: str

    def __post_init__(self) -> None:
        if isinstance(self.rows.features[self.columns.image], Image):
            self.rows = self.rows.cast_column(self.columns.image, Image(decode=False))

    def without_stated_sizes(self) -> _Table:
        """Return the table without stated sizes: fractions refer to the upright image."""
        stated = [key for key in SIZE_KEYS if key in self.rows.features]
        return replace(self, rows=self.rows.remove_columns(stated)) if stated else self

    def records(self) -> list[Record]:
        """Return a record of each row, with unique image ids; images without a stated size are opened for it."""
        self._check_paths()
        rows = self.rows.select_columns(self.columns.required(self.rows.features))
        records = [self.columns.record(row, number, self.origin) for number, row in enumerate(rows)]
        if len({record.image_id for record in records}) < len(records):
            for number, record in enumerate(records):
                record.image_id = number
        return records

    def _check_paths(self) -> None:
        """Raise InputError if none of the first images exists, instead of one problem for each row."""
        first = self.rows.select(range(min(_SAMPLE_ROWS, len(self.rows)))).select_columns([self.columns.image])
        images = [self.columns.stored_image(row) for row in first]
        paths = [image["path"] for image in images if image and image["bytes"] is None]
        if paths and first_file(paths) is None:
            searched = ", ".join(map(str, self.columns.image_folders)) or "this machine"
            raise InputError(
                f"{self.origin}: none of the first {len(paths)} files in column {self.columns.image} is in {searched}, for "
                f"example {paths[0]}. Put the images there"
            )

    def convert(self, records: Sequence[Record], names: list[str]) -> Dataset:
        """Return the split in the schema, from one record for each row."""
        class_indices = {name: index for index, name in enumerate(names)}
        features = detection_features(names)
        images = self._images(records).cast_column("image", features.pop("image"))
        return concatenate_datasets(
            [images, Dataset.from_dict(schema_columns(records, class_indices), features=features)], axis=1
        )

    def _images(self, records: Sequence[Record]) -> Dataset:
        """Return the column `image`: unchanged if rows have bytes, else with the paths of the records."""
        name = self.columns.image
        column = self.rows.select_columns([name])
        if all(self.columns.is_path(row) for row in column):
            return Dataset.from_dict({"image": [str(record.path) for record in records]})
        return column if name == "image" else column.rename_column(name, "image")
