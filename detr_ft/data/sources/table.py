"""Reads tables of boxes: CSV files with a header, one object a line, as TensorFlow, Roboflow and Open Images write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.boxes import settle_boxes
from detr_ft.data.sources.header import Header
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.objects import natural
from detr_ft.data.sources.records import (
    Flags,
    Record,
    measured_size,
    numbers,
    raise_all,
    read_text,
    split_folders,
    split_of,
    split_of_folder,
    stated_side,
    to_dataset,
)
from detr_ft.errors import UserError

TABLE_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = ",;\t"
_FIRST = 20


def read_table(path: Path, format: BoxFormat | None = None) -> DatasetDict:
    """The data set of a CSV file, or of a folder with one for each split; a line without a box is an image without objects.

    The first line names the columns: the image's file, the class, and a box; `width` and `height` beside corners are the
    image's. What the names leave open of the boxes' format is recognised where `format` is None. Classes are sorted.
    """
    one = split_of(path.stem) or split_of_folder(path.parent) or "train"
    files = {one: path} if path.is_file() else table_files(path)
    if not files:
        raise_all([f"{file}: {_header(file)[0]}" for file in _all_tables(path)])
        raise UserError(f"{path}: no .csv found; expected train.csv and val.csv, or train/_annotations.csv")
    problems: list[str] = []
    tables = {split: _Table.read(file, split, format, problems) for split, file in files.items()}
    raise_all(problems)
    for formats in dict.fromkeys(table.formats for table in tables.values()):
        records = [one for table in tables.values() if table.formats == formats for one in table.records.values()]
        settle_boxes(records, f"csv:{path}", format, formats)
    splits = {split: list(table.records.values()) for split, table in tables.items()}
    return to_dataset(splits, natural(name for rows in splits.values() for one in rows for name in one.names), path)


def table_files(folder: Path) -> dict[str, Path]:
    """The table of each split below a folder, among the files whose header names image, class and box; or none."""
    inside = [(split, file) for split, child in split_folders(folder) for file in _tables_in(child)]
    places = [inside] + [
        [(split_of(file.stem), file) for file in _tables_in(place)] for place in (folder / "annotations", folder)
    ]
    for group in places:
        tables = [(split, file) for split, file in group if isinstance(_header(file)[0], Header)]
        if len(tables) == 1:
            return {tables[0][0] or "train": tables[0][1]}
        named = [(split, file) for split, file in tables if split]
        splits = dict(named)
        if len(splits) < len(named) or (tables and not named):
            listed = ", ".join(str(file) for _, file in tables)
            raise UserError(f"{folder}: which table is which split's isn't plain: {listed}; name one of them outright")
        if splits:
            return splits
    return {}


def _all_tables(folder: Path) -> list[Path]:
    children = [child for _, child in split_folders(folder)]
    return [file for place in (*children, folder / "annotations", folder) for file in _tables_in(place)]


def _tables_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in TABLE_SUFFIXES) if folder.is_dir() else []


def _header(file: Path) -> tuple[Header | str, str]:
    """What a file's first line says, and its delimiter."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            line = stream.readline()
        delimiter = max(_DELIMITERS, key=line.count)
        return Header.read(next(csv.reader([line], delimiter=delimiter), [])), delimiter
    except (OSError, csv.Error) as error:
        raise UserError(f"{file}: can't be read as a table ({error})") from error


@dataclass
class _Table:
    """One file on its way into records, by the images' names."""

    file: Path
    header: Header
    delimiter: str
    images: ImageFinder
    classes: dict[str, str]
    problems: list[str]
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def formats(self) -> tuple[BoxFormat, ...]:
        return self.header.formats

    @classmethod
    def read(cls, file: Path, split: str, format: BoxFormat | None, problems: list[str]) -> _Table:
        """The table of a file; what is wrong with it is added to `problems`, each with its line."""
        header, delimiter = _header(file)
        if isinstance(header, str):
            raise UserError(f"{file}: {header}")
        corners = dict.fromkeys(one.corners for one in header.formats)
        if format is not None and format.corners not in corners:
            raise UserError(
                f"{file}: box_format {format.name} contradicts its columns, which are {' or '.join(corners)}"
            )
        table = cls(file, header, delimiter, ImageFinder(file, split), _class_descriptions(file.parent), problems)
        table._read()
        return table

    def _read(self) -> None:
        reader = csv.reader(io.StringIO(read_text(self.file), newline=""), delimiter=self.delimiter)
        try:
            width = len(next(reader))
            for cells in reader:
                where = f"{self.file}, line {reader.line_num}"
                if len(cells) < width or any(cell.strip() for cell in cells[width:]):
                    if any(cell.strip() for cell in cells):
                        self.problems.append(f"{where}: {len(cells)} cells, where the header has {width}")
                elif any(cell.strip() for cell in cells):
                    self._add(cells, where)
        except csv.Error as error:
            self.problems.append(f"{self.file}, line {reader.line_num}: not a table ({error})")
        first = list(self.records.values())[:_FIRST]
        if first and not any(record.path.is_file() for record in first):
            self.problems.append(f"{self.file}: its images are in none of these folders: {self.images}")

    def _add(self, cells: Sequence[str], where: str) -> None:
        header = self.header
        file, label = cells[header.file].strip(), cells[header.name].strip()
        written = [self._number(cells[place]) for place in header.box]
        if not file:
            self.problems.append(f"{where}: no image is named")
            return
        record = self._record(file, cells)
        if not any(written):
            return
        box = numbers(written, 4)
        if box is None:
            self.problems.append(
                f"{where}: a box needs four numbers, or none at all; got {', '.join(cell or 'nothing' for cell in written)}"
            )
        elif not label:
            self.problems.append(f"{where}: the box has no class")
        else:
            flags = Flags(*(self._yes(cells, place) for place in (header.crowd, header.difficult, header.truncated)))
            record.add(box, self.classes.get(label, label), flags=flags)

    def _record(self, file: str, cells: Sequence[str]) -> Record:
        if file not in self.records:
            path = self.images.find(file)
            stated = numbers([self._number(cells[place]) for place in self.header.size or ()], 2) or [0.0, 0.0]
            width, height = map(stated_side, stated)
            if width is None or height is None:
                width, height = measured_size(path)
            self.records[file] = Record(path, len(self.records), width, height)
        return self.records[file]

    def _number(self, cell: str) -> str:
        """A number as Python reads it: where columns aren't parted by commas, decimals may be."""
        return cell.strip() if self.delimiter == "," else cell.strip().replace(",", ".")

    def _yes(self, cells: Sequence[str], place: int | None) -> bool:
        return place is not None and cells[place].strip().lower() in ("1", "1.0", "true", "yes")


def _class_descriptions(folder: Path) -> dict[str, str]:
    """Open Images' names of classes by their label (`/m/011k07`), from a file beside the table or one folder above."""
    found = [file for place in (folder, folder.parent) for file in sorted(place.glob("class-descriptions*.csv"))]
    rows = csv.reader(io.StringIO(read_text(found[0])) if found else [])
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
