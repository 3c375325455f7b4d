"""Read CSV files with a header and one object a line, as of TensorFlow, Roboflow and Open Images."""

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
from detr_ft.data.images import name_in_other_case
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.box_reading import convert_boxes
from detr_ft.data.sources.csv_columns import Header
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import ImageFinder, image_root, plain_path
from detr_ft.data.sources.listing import files_in, split_folders, split_of, split_of_file
from detr_ft.data.sources.parsing import parse_flag, parse_numbers, read_text, shown
from detr_ft.data.sources.record import Flags, Record, sort_naturally, to_dataset, used_names
from detr_ft.errors import InputError

_SUFFIXES = {".csv", ".tsv"}
_DELIMITERS = ",;\t"
_SAMPLE_IMAGES = 20
_MAX_SPLITS_SHOWN = 20
_MAX_CHARS_SHOWN = 80  # of a box in a message

_Line = Sequence[str]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a path is a CSV or TSV file, or a folder with a table of boxes."""
    return path.suffix.lower() in _SUFFIXES if path.is_file() else bool(_table_files(path))


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """Read a CSV file, or a folder with one for each split; classes are sorted.

    The first line names the columns: the image's file, the class, and a box (four columns, or one named bbox). `width`
    and `height` beside corners are those of the image. A column `split` overrides the splits in file names. A line
    without a box is an image without objects. The format of the boxes is recognized as far as column names and
    `box_format` leave it open.
    """
    files = {split_of_file(path): path} if path.is_file() else _table_files(path)
    if not files:
        raise_all([f"{file}: {_read_header(file)[0]}" for file in _all_tables(path)])
        raise InputError(f"{path}: no .csv, expected train.csv and val.csv, or train/_annotations.csv")
    problems: list[str] = []
    tables = [CsvTable.read(file, split, box_format, problems) for split, file in files.items()]
    raise_all(problems)
    for formats in dict.fromkeys(table.formats for table in tables):
        records = [record for table in tables if table.formats == formats for record in table.records.values()]
        convert_boxes(records, f"csv:{path}", box_format, formats)
    splits = _splits(tables)
    return SourceData(to_dataset(splits, sort_naturally(used_names(splits)), path))


def _splits(tables: Iterable[CsvTable]) -> dict[str, list[Record]]:
    """Return the records of each split, with image ids from 0."""
    splits: dict[str, list[Record]] = {}
    for table in tables:
        for (split, _), record in table.records.items():
            records = splits.setdefault(split, [])
            record.image_id = len(records)
            records.append(record)
    return splits


def _table_files(folder: Path) -> dict[str, Path]:
    """Return the table of boxes of each split; empty if there is none."""
    groups: list[list[tuple[str | None, Path]]] = [
        [(split, file) for split, child in split_folders(folder) for file in _tables_in(child)],
        *([(split_of(file.stem), file) for file in _tables_in(parent)] for parent in (folder / "annotations", folder)),
    ]
    for group in groups:
        tables = [(split, file) for split, file in group if isinstance(_read_header(file)[0], Header)]
        if len(tables) == 1:
            return {tables[0][0] or "train": tables[0][1]}
        named = [(split, file) for split, file in tables if split]
        splits = dict(named)
        if len(splits) < len(named) or (tables and not named):
            listed = ", ".join(str(file) for _, file in tables)
            raise InputError(f"{folder}: ambiguous splits of the tables {listed}. Name one of them, as in csv:FILE")
        if splits:
            return splits
    return {}


def _all_tables(folder: Path) -> list[Path]:
    children = [child for _, child in split_folders(folder)]
    return [file for parent in (*children, folder / "annotations", folder) for file in _tables_in(parent)]


def _tables_in(folder: Path) -> list[Path]:
    return files_in(folder, _SUFFIXES)


def _read_header(file: Path) -> tuple[Header | str, str]:
    """Return the header of a file, or a message with what it lacks, and the delimiter."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            line = stream.readline()
        delimiter = max(_DELIMITERS, key=line.count)
        return Header.read(next(csv.reader([line], delimiter=delimiter), [])), delimiter
    except (OSError, csv.Error) as error:
        raise InputError(f"{file}: can't be read as a table ({error})") from error


@dataclass
class CsvTable:
    """A CSV file and its records by split and image name; `split` is the default of its lines."""

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
        """The possible formats of its boxes."""
        return self.header.formats

    @classmethod
    def read(cls, file: Path, split: str, box_format: BoxFormat | None, problems: list[str]) -> CsvTable:
        """Read a file; problems are added to `problems` with their lines."""
        header, delimiter = _read_header(file)
        if isinstance(header, str):
            raise InputError(f"{file}: {header}")
        corners = dict.fromkeys(format.corners for format in header.formats)
        if box_format is not None and box_format.corners not in corners:
            raise InputError(
                f"{file}: box_format {box_format.name} contradicts the columns. It must be {' or '.join(corners)}"
            )
        table = cls(file, split, header, delimiter, _class_descriptions(file.parent), problems)
        table._read()
        table._check_images_and_splits()
        return table

    def _read(self) -> None:
        reader = csv.reader(io.StringIO(read_text(self.file), newline=""), delimiter=self.delimiter)
        try:
            width = len(next(reader))
            for cells in reader:
                where = f"{self.file}, line {reader.line_num}"
                if len(cells) < width or any(cell.strip() for cell in cells[width:]):
                    if any(cell.strip() for cell in cells):
                        self.problems.append(f"{where}: must have {width} cells, got {len(cells)}")
                elif any(cell.strip() for cell in cells):
                    self._add(cells, where)
        except csv.Error as error:
            self.problems.append(f"{self.file}, line {reader.line_num}: not a table ({error})")

    def _check_images_and_splits(self) -> None:
        """Add problems of the whole file: splits without a single image file, and unknown splits alone."""
        missing = [split for split in self.finders if not self._has_images(split)]
        if missing:
            folders = dict.fromkeys(folder for split in missing for folder in self.finders[split].folders)
            first = next(record.path for (split, _), record in self.records.items() if split == missing[0])
            similar = name_in_other_case(first)
            self.problems.append(
                f"{self.file}: its images are in none of these folders, nor below them: {', '.join(map(str, folders))}; "
                f"for example {first.name}. " + (f"Did you mean {similar}?" if similar else "Put them in one of these")
            )
        listed = ", ".join(map(shown, sorted(self.other_splits)[:_MAX_SPLITS_SHOWN]))
        if self.other_splits and not self.records:
            self.problems.append(f"{self.file}: unknown splits {listed}. Name them train, validation and test")
        elif self.other_splits:
            message = "%s: %d lines of other splits than train, validation and test are left out: %s"
            log.warning(message, self.file, self.other_splits.total(), listed)

    def _has_images(self, split: str) -> bool:
        records = [record for (name, _), record in self.records.items() if name == split]
        return any(os.path.isfile(record.path) for record in records[:_SAMPLE_IMAGES])

    def _add(self, cells: _Line, where: str) -> None:
        header = self.header
        file, label = plain_path(cells[header.file].strip()), cells[header.name].strip()
        if not file:
            self.problems.append(f"{where}: must name an image")
            return
        split = self._split(cells, file, where)
        if split is None:
            return
        record, box_cells = self._record(split, file, cells, where), self._box_cells(cells)
        if not any(box_cells):
            return
        box = parse_numbers(box_cells, 4)
        if box is None:
            got = ", ".join(cell or "nothing" for cell in box_cells)[:_MAX_CHARS_SHOWN]
            self.problems.append(f"{where}: a box must have four numbers, or none, got {got}")
        elif not label:
            self.problems.append(f"{where}: the box must have a class")
        else:
            columns = ((header.crowd, "crowd"), (header.difficult, "difficult"), (header.truncated, "truncated"))
            flags = Flags(*(self._flag(cells, index, f"the {name} column", where) for index, name in columns))
            record.add(box, self.classes.get(label, label), flags=flags)

    def _split(self, cells: _Line, file: str, where: str) -> str | None:
        """Return the split of a line, None for an unknown split or a problem."""
        if self.header.split is None:
            return self.split
        word = cells[self.header.split].strip()
        split = split_of(word)
        if not word:
            self.problems.append(f"{where}: the split must be train, validation or test, got nothing")
            return None
        if split is None:
            self.other_splits[word] += 1
            return None
        first = self.split_by_image.setdefault(file, split)
        if split != first:
            self.problems.append(
                f"{where}: the image {shown(file)} is in {split}, and in {first} before. Use one split for it"
            )
        return split

    def _box_cells(self, cells: _Line) -> list[str]:
        """Return the texts of a box's numbers, from one column such as `[1, 2, 3, 4]`, or from four."""
        columns = self.header.box
        if len(columns) > 1:
            return [self._number(cells[index]) for index in columns]
        inside = re.sub(r"^[\[({]|[\])}]$", "", cells[columns[0]].strip()).strip()
        return re.split(r"\s*[,;]\s*|\s+", inside) if inside else []

    def _record(self, split: str, file: str, cells: _Line, where: str) -> Record:
        key = split, file
        if key not in self.records:
            if split not in self.finders:
                folders = _image_folders(self.file, split)
                self.finders[split] = ImageFinder(image_root(self.file), folders, split)
            path = self.finders[split].find(file, where, self.problems)
            sides = parse_numbers([self._number(cells[index]) for index in self.header.size or ()], 2) or (None, None)
            self.records[key] = Record.with_size(path, len(self.records), *sides)
        return self.records[key]

    def _number(self, cell: str) -> str:
        """Return the text of a number for `float`: with decimal commas, if the delimiter is no comma."""
        return cell.strip() if self.delimiter == "," else cell.strip().replace(",", ".")

    def _flag(self, cells: _Line, index: int | None, field: str, where: str) -> bool:
        return index is not None and parse_flag(cells[index], field, where, self.problems)


def _image_folders(file: Path, split: str) -> list[Path]:
    """Return the folders where the images of a table usually are, the nearest first.

    These are its folder and the parent, `images/` in both, and folders named after the file or the split in each of
    them.
    """
    near = [parent / name for parent in (file.parent, file.parent.parent) for name in ("", "images")]
    words = [word for word in (file.stem, split, "val", "valid", "dev") if split_of(word) == split]
    folders = dict.fromkeys([*near, *(folder / word for folder in near for word in words)])
    return [folder for folder in folders if folder.is_dir()]


def _class_descriptions(folder: Path) -> dict[str, str]:
    """Return Open Images' class names by label (`/m/011k07`), from the folder or its parent."""
    files = (file for parent in (folder, folder.parent) for file in files_in(parent, {".csv"}))
    file = next((file for file in files if file.name.startswith("class-descriptions")), None)
    if file is None:
        return {}
    try:
        rows = list(csv.reader(io.StringIO(read_text(file))))
    except csv.Error as error:
        raise InputError(f"{file}: can't be read as a table of classes ({error})") from error
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
