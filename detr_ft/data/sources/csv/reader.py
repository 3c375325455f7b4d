"""Reads tables of boxes: CSV files with a header, one object a line, as TensorFlow, Roboflow and Open Images write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.csv.header import Header
from detr_ft.data.sources.csv.parser import Table, read_header
from detr_ft.data.sources.problems import raise_all
from detr_ft.data.sources.record import Record, files_in, split_folders, split_of, split_of_folder, to_dataset
from detr_ft.data.sources.tables.box_reading import settle_boxes
from detr_ft.data.sources.tables.objects import natural
from detr_ft.errors import InputError

TABLE_SUFFIXES = (".csv", ".tsv")


def read_table(path: Path, format: BoxFormat | None = None) -> DatasetDict:
    """The data set of a CSV file, or of a folder with one for each split; a line without a box is an image without objects.

    The first line names the columns: the image's file, the class, and a box (four columns, or one called bbox); `width` and
    `height` beside corners are the image's, and a column `split` goes before the splits that files' names tell. What the
    names leave open of the boxes' format is recognised where `format` is None. Classes are sorted.
    """
    one = split_of(path.stem) or split_of_folder(path.parent) or "train"
    files = {one: path} if path.is_file() else table_files(path)
    if not files:
        raise_all([f"{file}: {read_header(file)[0]}" for file in _all_tables(path)])
        raise InputError(f"{path}: no .csv found; expected train.csv and val.csv, or train/_annotations.csv")
    problems: list[str] = []
    tables = [Table.read(file, split, format, problems) for split, file in files.items()]
    raise_all(problems)
    for formats in dict.fromkeys(table.formats for table in tables):
        records = [one for table in tables if table.formats == formats for one in table.records.values()]
        settle_boxes(records, f"csv:{path}", format, formats)
    splits = _splits(tables)
    return to_dataset(splits, natural(name for rows in splits.values() for one in rows for name in one.names), path)


def _splits(tables: Iterable[Table]) -> dict[str, list[Record]]:
    """The records of each split, numbered within it."""
    splits: dict[str, list[Record]] = {}
    for table in tables:
        for (split, _), record in table.records.items():
            records = splits.setdefault(split, [])
            record.image_id = len(records)
            records.append(record)
    return splits


def table_files(folder: Path) -> dict[str, Path]:
    """The table of each split below a folder, among the files whose header names image, class and box; or none."""
    inside = [(split, file) for split, child in split_folders(folder) for file in _tables_in(child)]
    places = [inside] + [
        [(split_of(file.stem), file) for file in _tables_in(place)] for place in (folder / "annotations", folder)
    ]
    for group in places:
        tables = [(split, file) for split, file in group if isinstance(read_header(file)[0], Header)]
        if len(tables) == 1:
            return {tables[0][0] or "train": tables[0][1]}
        named = [(split, file) for split, file in tables if split]
        splits = dict(named)
        if len(splits) < len(named) or (tables and not named):
            listed = ", ".join(str(file) for _, file in tables)
            raise InputError(f"{folder}: which table is which split's isn't plain: {listed}; name one of them outright")
        if splits:
            return splits
    return {}


def _all_tables(folder: Path) -> list[Path]:
    children = [child for _, child in split_folders(folder)]
    return [file for place in (*children, folder / "annotations", folder) for file in _tables_in(place)]


def _tables_in(folder: Path) -> list[Path]:
    return files_in(folder, TABLE_SUFFIXES)
