"""Tables of `datasets` (of the Hub, in Parquet, saved on disk) in the schema; their images are neither decoded nor copied."""

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
from detr_ft.data.sources.box_reading import convert, settled_format
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import first_file
from detr_ft.data.sources.listing import split_of
from detr_ft.data.sources.record import Record, columns_of, natural, tell_of_troubles, used_names
from detr_ft.data.sources.table_columns import SIZE_KEYS, Columns
from detr_ft.errors import InputError

_FIRST = 20

log = logging.getLogger(__name__)


@contextmanager
def loading(origin: str) -> Iterator[None]:
    """What `datasets` raises for data that it can't read becomes a InputError that names the origin."""
    try:
        yield
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, DatasetsError) and error.__cause__ else error
        raise InputError(f"{origin}: can't be loaded ({cause})") from error


def to_schema(
    raw: Mapping[str, Dataset],
    origin: str,
    format: BoxFormat | None = None,
    places: Mapping[str, Sequence[Path]] = MappingProxyType({}),
) -> DatasetDict:
    """Detection tables in the schema; splits that are none of ours are left out, and said so.

    Where `format` is None the boxes' is recognised. Relative paths of a split's images start at one of its `places`.
    Raises InputError with all the rows that are malformed.
    """
    chosen: dict[str, _Table] = {}
    for word, rows in raw.items():
        split = split_of(word)
        if split is None or split in chosen or not len(rows):
            log.warning("%s: split %r is left out", origin, word)
        else:
            where = f"{origin}, split {word}"
            chosen[split] = _Table(rows, Columns.find(rows.features, where, places.get(word, ())), where)
    if not chosen:
        raise InputError(f"{origin}: no split with images among {', '.join(raw) or 'none'}")
    problems: list[str] = []
    chosen = {split: chosen[split] for split in SPLITS if split in chosen}
    records = {split: table.records(problems) for split, table in chosen.items()}
    raise_all(problems)
    tell_of_troubles(record for split in records.values() for record in split)
    settled = settled_format([record for split in records.values() for record in split], origin, format)
    if settled.unit == "fractions":
        records = {split: table.of_true_sizes().records(problems) for split, table in chosen.items()}
    for record in (record for split in records.values() for record in split):
        convert(record, settled)
    names = _names([table.columns for table in chosen.values()], records, origin)
    return DatasetDict({split: table.convert(records[split], names) for split, table in chosen.items()})


def _names(columns: Sequence[Columns], records: Mapping[str, Sequence[Record]], origin: str) -> list[str]:
    """The classes: those that the features name, in their order, then others that occur, sorted."""
    named = dict.fromkeys(name for one in columns for name in one.names or ())
    others = natural(used_names(records) - named.keys())
    if others and all(name.isdecimal() for name in others):
        log.info("%s: classes are numbers without names: they are called %s", origin, ", ".join(others[:12]))
    if not named and not others:
        raise InputError(f"{origin}: not one object found, and no class is named")
    return [*named, *others]


@dataclass
class _Table:
    rows: Dataset
    columns: Columns
    origin: str

    def __post_init__(self) -> None:
        if isinstance(self.rows.features[self.columns.image], Image):
            self.rows = self.rows.cast_column(self.columns.image, Image(decode=False))

    def of_true_sizes(self) -> _Table:
        """Without stated sizes: fractions need none, and are of the image as whoever drew the boxes saw it."""
        stated = [key for key in SIZE_KEYS if key in self.rows.features]
        return replace(self, rows=self.rows.remove_columns(stated)) if stated else self

    def records(self, problems: list[str]) -> list[Record]:
        """A record of each row, with unique image ids; only the images' headers are read, and only where no size is stated."""
        self._refuse_vain_paths()
        rows = self.rows.select_columns(self.columns.needed(self.rows.features))
        found = [self.columns.record(row, number, self.origin, problems) for number, row in enumerate(rows)]
        records = [record for record in found if record is not None]
        if len({record.image_id for record in records}) < len(records):
            for number, record in enumerate(records):
                record.image_id = number
        return records

    def _refuse_vain_paths(self) -> None:
        """Raise InputError where none of the first images can be found: all the others would be said to be missing as well."""
        first = self.rows.select(range(min(_FIRST, len(self.rows)))).select_columns([self.columns.image])
        images = [self.columns.stored_image(row) for row in first]
        paths = [image["path"] for image in images if image and image["bytes"] is None]
        if paths and first_file(paths) is None:
            looked = ", ".join(map(str, self.columns.places)) or "this machine"
            raise InputError(
                f"{self.origin}: column {self.columns.image} names files, and none of the first {len(paths)} is in {looked}: "
                f"there is no {paths[0]}"
            )

    def convert(self, records: Sequence[Record], names: list[str]) -> Dataset:
        """The split in the schema, of one record for each row."""
        index = {name: number for number, name in enumerate(names)}
        features = detection_features(names)
        images = self._images(records).cast_column("image", features.pop("image"))
        return concatenate_datasets([images, Dataset.from_dict(columns_of(records, index), features=features)], axis=1)

    def _images(self, records: Sequence[Record]) -> Dataset:
        """The column `image`: as it is where rows hold bytes, else with the paths that were found."""
        name = self.columns.image
        column = self.rows.select_columns([name])
        if all(self.columns.is_path(row) for row in column):
            return Dataset.from_dict({"image": [str(record.path) for record in records]})
        return column if name == "image" else column.rename_column(name, "image")
