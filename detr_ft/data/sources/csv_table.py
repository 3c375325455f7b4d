"""Reads tables of boxes: CSV files with a header, one object a line, as TensorFlow, Roboflow and Open Images write them."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.images import name_but_for_case
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.box_reading import settle_boxes
from detr_ft.data.sources.csv_columns import Header
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import ImageFinder, annotated_root, plain_path
from detr_ft.data.sources.listing import files_in, split_folders, split_of, split_of_file
from detr_ft.data.sources.parsing import parse_flag, parse_numbers, read_text, shown
from detr_ft.data.sources.record import Flags, Record, natural, to_dataset, used_names
from detr_ft.errors import InputError

_SUFFIXES = {".csv", ".tsv"}
_DELIMITERS = ",;\t"
_FIRST = 20

_Line = Sequence[str]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Whether a path is a `.csv` or `.tsv` file, or a folder with one whose header names image, class and box."""
    return path.suffix.lower() in _SUFFIXES if path.is_file() else bool(_table_files(path))


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """The data set of a CSV file, or of a folder with one for each split; a line without a box is an image without objects.

    The first line names the columns: the image's file, the class, and a box (four columns, or one called bbox); `width` and
    `height` beside corners are the image's, and a column `split` goes before the splits that files' names tell. What the
    names leave open of the boxes' format is recognised where `box_format` is None. Classes are sorted.
    """
    files = {split_of_file(path): path} if path.is_file() else _table_files(path)
    if not files:
        raise_all([f"{file}: {_read_header(file)[0]}" for file in _all_tables(path)])
        raise InputError(f"{path}: no .csv found; expected train.csv and val.csv, or train/_annotations.csv")
    problems: list[str] = []
    tables = [CsvTable.read(file, split, box_format, problems) for split, file in files.items()]
    raise_all(problems)
    for formats in dict.fromkeys(table.formats for table in tables):
        records = [one for table in tables if table.formats == formats for one in table.records.values()]
        settle_boxes(records, f"csv:{path}", box_format, formats)
    splits = _splits(tables)
    return SourceData(to_dataset(splits, natural(used_names(splits)), path))


def _splits(tables: Iterable[CsvTable]) -> dict[str, list[Record]]:
    """The records of each split, numbered within it."""
    splits: dict[str, list[Record]] = {}
    for table in tables:
        for (split, _), record in table.records.items():
            records = splits.setdefault(split, [])
            record.image_id = len(records)
            records.append(record)
    return splits


def _table_files(folder: Path) -> dict[str, Path]:
    """The table of each split below a folder, among the files whose header names image, class and box; or none."""
    inside = [(split, file) for split, child in split_folders(folder) for file in _tables_in(child)]
    places = [inside] + [
        [(split_of(file.stem), file) for file in _tables_in(place)] for place in (folder / "annotations", folder)
    ]
    for group in places:
        tables = [(split, file) for split, file in group if isinstance(_read_header(file)[0], Header)]
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
    return files_in(folder, _SUFFIXES)


def _read_header(file: Path) -> tuple[Header | str, str]:
    """What a file's first line says, or what it lacks, and its delimiter."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            line = stream.readline()
        delimiter = max(_DELIMITERS, key=line.count)
        return Header.read(next(csv.reader([line], delimiter=delimiter), [])), delimiter
    except (OSError, csv.Error) as error:
        raise InputError(f"{file}: can't be read as a table ({error})") from error


@dataclass
class CsvTable:
    """The records of a file, by split and by the images' names; `split` is that of lines that tell none themselves."""

    file: Path
    split: str
    header: Header
    delimiter: str
    classes: dict[str, str]
    problems: list[str]
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    finders: dict[str, ImageFinder] = field(default_factory=dict)
    other_splits: Counter[str] = field(default_factory=Counter)
    split_by_image: dict[str, str] = field(default_factory=dict)

    @property
    def formats(self) -> tuple[BoxFormat, ...]:
        """The formats among which its boxes are."""
        return self.header.formats

    @classmethod
    def read(cls, file: Path, split: str, box_format: BoxFormat | None, problems: list[str]) -> CsvTable:
        """The table of a file; what is wrong with it is added to `problems`, each with its line."""
        header, delimiter = _read_header(file)
        if isinstance(header, str):
            raise InputError(f"{file}: {header}")
        corners = dict.fromkeys(one.corners for one in header.formats)
        if box_format is not None and box_format.corners not in corners:
            raise InputError(
                f"{file}: box_format {box_format.name} contradicts its columns, which are {' or '.join(corners)}"
            )
        table = cls(file, split, header, delimiter, _class_descriptions(file.parent), problems)
        table._read()
        table._tell()
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

    def _tell(self) -> None:
        """What only the whole file shows: that no image is where it should be, and splits that are none of ours."""
        lost = [split for split in self.finders if not self._finds_images(split)]
        if lost:
            folders = dict.fromkeys(folder for split in lost for folder in self.finders[split].folders)
            first = next(record.path for (split, _), record in self.records.items() if split == lost[0])
            near = name_but_for_case(first)
            self.problems.append(
                f"{self.file}: its images are in none of these folders, nor below them: {', '.join(map(str, folders))}; "
                f"for example {first.name}" + (f": did you mean {near}?" if near else "")
            )
        listed = ", ".join(map(shown, sorted(self.other_splits)[:_FIRST]))
        if self.other_splits and not self.records:
            self.problems.append(f"{self.file}: its splits are {listed}; name them train, validation and test")
        elif self.other_splits:
            message = "%s: %d lines are left out, whose split is none of train, validation and test but %s"
            log.warning(message, self.file, self.other_splits.total(), listed)

    def _finds_images(self, split: str) -> bool:
        first = [record for (one, _), record in self.records.items() if one == split][:_FIRST]
        return any(os.path.isfile(record.path) for record in first)

    def _add(self, cells: _Line, where: str) -> None:
        header = self.header
        file, label = plain_path(cells[header.file].strip()), cells[header.name].strip()
        if not file:
            self.problems.append(f"{where}: no image is named")
            return
        split = self._split(cells, file, where)
        if split is None:
            return
        record, written = self._record(split, file, cells, where), self._written(cells)
        if not any(written):
            return
        box = parse_numbers(written, 4)
        if box is None:
            got = ", ".join(cell or "nothing" for cell in written)[:80]
            self.problems.append(f"{where}: a box needs four numbers, or none at all; got {got}")
        elif not label:
            self.problems.append(f"{where}: the box has no class")
        else:
            said = ((header.crowd, "crowd"), (header.difficult, "difficult"), (header.truncated, "truncated"))
            flags = Flags(*(self._flag(cells, place, f"the {word} column", where) for place, word in said))
            record.add(box, self.classes.get(label, label), flags=flags)

    def _split(self, cells: _Line, file: str, where: str) -> str | None:
        """The split of a line; None where it is none of ours, or for a problem."""
        if self.header.split is None:
            return self.split
        word = cells[self.header.split].strip()
        split = split_of(word)
        if not word:
            self.problems.append(f"{where}: the split is empty; it is one of train, validation and test")
            return None
        if split is None:
            self.other_splits[word] += 1
            return None
        first = self.split_by_image.setdefault(file, split)
        if split != first:
            self.problems.append(f"{where}: the image {shown(file)} is in {split}, but in {first} before")
        return split

    def _written(self, cells: _Line) -> list[str]:
        """The numbers of a line's box as they are written, in one column like `[1, 2, 3, 4]` or in four."""
        places = self.header.box
        if len(places) > 1:
            return [self._number(cells[place]) for place in places]
        inside = re.sub(r"^[\[({]|[\])}]$", "", cells[places[0]].strip()).strip()
        return re.split(r"\s*[,;]\s*|\s+", inside) if inside else []

    def _record(self, split: str, file: str, cells: _Line, where: str) -> Record:
        key = split, file
        if key not in self.records:
            if split not in self.finders:
                folders = _image_folders(self.file, split)
                self.finders[split] = ImageFinder(annotated_root(self.file), folders, split)
            path = self.finders[split].find(file, where, self.problems)
            sides = parse_numbers([self._number(cells[place]) for place in self.header.size or ()], 2) or (None, None)
            self.records[key] = Record.sized(path, len(self.records), *sides)
        return self.records[key]

    def _number(self, cell: str) -> str:
        """A number as Python reads it: where columns aren't parted by commas, decimals may be."""
        return cell.strip() if self.delimiter == "," else cell.strip().replace(",", ".")

    def _flag(self, cells: _Line, place: int | None, field: str, where: str) -> bool:
        return place is not None and parse_flag(cells[place], field, where, self.problems)


def _image_folders(file: Path, split: str) -> list[Path]:
    """The folders where the images of a table usually are, the nearer before the farther.

    Those are its own and the one above, images/ in either, and folders named as the file or the split in each of these.
    """
    near = [place / name for place in (file.parent, file.parent.parent) for name in ("", "images")]
    words = [word for word in (file.stem, split, "val", "valid", "dev") if split_of(word) == split]
    places = dict.fromkeys([*near, *(place / word for place in near for word in words)])
    return [place for place in places if place.is_dir()]


def _class_descriptions(folder: Path) -> dict[str, str]:
    """Open Images' names of classes by their label (`/m/011k07`), from a file beside the table or one folder above."""
    found = [
        file
        for place in (folder, folder.parent)
        for file in files_in(place, {".csv"})
        if file.name.startswith("class-descriptions")
    ]
    if not found:
        return {}
    try:
        rows = list(csv.reader(io.StringIO(read_text(found[0]))))
    except csv.Error as error:
        raise InputError(f"{found[0]}: can't be read as a table of classes ({error})") from error
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
