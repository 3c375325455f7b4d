"""Read CSV files with a header and one object a line, as of TensorFlow, Roboflow and Open Images."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.images import name_in_other_case
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.box_reading import convert_boxes
from detr_ft.data.sources.conversion import sort_naturally, to_source_data, used_names
from detr_ft.data.sources.csv_columns import Header
from detr_ft.data.sources.image_finder import ImageFinder, image_root, plain_path
from detr_ft.data.sources.listing import file_by_split, files_in, split_folders, split_of
from detr_ft.data.sources.parsing import decode_text, parse_flag, parse_numbers, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Flags, Record
from detr_ft.errors import InputError

_SUFFIXES = {".csv", ".tsv"}
_DELIMITERS = ",;\t"
_SAMPLE_IMAGES = 20
_MAX_SPLITS_SHOWN = 20
_MAX_CHARS_SHOWN = 80  # of a box in a message
_MAX_HEAD_BYTES = 1 << 16
_DELIMITER_LINE = re.compile(r"sep=(.)", re.IGNORECASE)  # spreadsheets write it before the header
# A number with a decimal comma; 1,234 could have a comma between thousands.
_DECIMAL_COMMA = re.compile(r"-?0,\d+|-?\d+,(\d{1,2}|\d{4,})")

_Line = Sequence[str]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a path is a CSV or TSV file, or a folder with a table of boxes."""
    return path.suffix.lower() in _SUFFIXES if path.is_file() else bool(_tables_of_boxes(path))


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a CSV file, or a folder with one for each split; classes are sorted.

    The first line names the columns: the image's file, the class, and a box (four columns, or one named bbox). `width`
    and `height` beside corners are those of the image. A column `split` overrides the splits in file names. A line
    without a box is an image without objects. The format of the boxes is recognized as far as column names and
    `box_format` leave it open.
    """
    files = {"train": path} if path.is_file() else _table_files(path)
    if not files:
        raise_all([f"{file}: {_read_header(file)[0]}" for _, file in _all_tables(path)])
        raise InputError(f"{path}: no .csv, expected train.csv and val.csv, or train/_annotations.csv")
    tables = [CsvTable.read(file, split, options) for split, file in files.items()]
    raise_all([reason for table in tables for reason in table.reasons])
    for formats in dict.fromkeys(table.formats for table in tables):
        records = [record for table in tables if table.formats == formats for record in table.records.values()]
        convert_boxes(records, f"csv:{path}", options.box_format, formats)
    splits = _splits(tables)
    has_column = any(table.header.split is not None for table in tables)
    split_by = "the split column" if has_column else None if list(files) == ["train"] else "the names of the files"
    return to_source_data(
        splits,
        sort_naturally(used_names(splits) - {""}),
        path,
        [problem for table in tables for problem in table.problems],
        split_by=split_by,
        annotated=[path for table in tables for path in table.annotated],
    )


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
    return file_by_split(_tables_of_boxes(folder), folder, "csv")


def _tables_of_boxes(folder: Path) -> list[tuple[str | None, Path]]:
    return [(split, file) for split, file in _all_tables(folder) if isinstance(_read_header(file)[0], Header)]


def _all_tables(folder: Path) -> list[tuple[str | None, Path]]:
    """Return the tables in a folder, its `annotations/` and its folders of splits, with split words."""
    in_splits = [(split, file) for split, child in split_folders(folder) for file in _tables_in(child)]
    parents = (folder / "annotations", folder)
    return [*in_splits, *((split_of(file.stem), file) for parent in parents for file in _tables_in(parent))]


def _tables_in(folder: Path) -> list[Path]:
    return files_in(folder, _SUFFIXES)


def _read_header(file: Path) -> tuple[Header | str, str]:
    """Return the header of a file, or a message with what it lacks, and the delimiter."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_MAX_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"{file}: can't be read as a table ({error})") from error
    lines = decode_text(head, errors="replace").splitlines()
    stated = _DELIMITER_LINE.fullmatch(lines[0].strip()) if lines else None
    line = next(iter(lines[1 if stated else 0 :]), "")
    delimiter = stated[1] if stated else max(_DELIMITERS, key=line.count)
    try:
        return Header.read(next(csv.reader([line], delimiter=delimiter), [])), delimiter
    except csv.Error as error:
        raise InputError(f"{file}: can't be read as a table ({error})") from error


@dataclass
class CsvTable:
    """A CSV file and its records by split and image name; `split` is the default of its lines.

    `reasons` are why it can't be used; `problems` belong to no record.
    """

    file: Path
    split: str
    header: Header
    delimiter: str
    classes: dict[str, str]
    images: Path | None
    reasons: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    finders: dict[str, ImageFinder] = field(default_factory=dict)
    other_splits: Counter[str] = field(default_factory=Counter)
    images_of_other_splits: dict[str, None] = field(default_factory=dict)
    split_by_image: dict[str, str] = field(default_factory=dict)
    _has_decimal_commas: bool = False

    @property
    def formats(self) -> tuple[BoxFormat, ...]:
        """The possible formats of its boxes."""
        return self.header.formats

    @property
    def annotated(self) -> list[Path]:
        """The image files of lines of other splits."""
        if not self.images_of_other_splits:
            return []
        finder = ImageFinder(image_root(self.file), _image_folders(self.file, ""), images=self.images)
        paths = [finder.locate(name, str(self.file), []) for name in self.images_of_other_splits]
        return [path.absolute() for path in paths if path]

    @classmethod
    def read(cls, file: Path, split: str, options: ReadOptions) -> CsvTable:
        """Read a file. Raises InputError for a file that is no table of boxes."""
        header, delimiter = _read_header(file)
        if isinstance(header, str):
            raise InputError(f"{file}: {header}")
        corners = dict.fromkeys(format.corners for format in header.formats)
        box_format = options.box_format
        if box_format is not None and box_format.corners not in corners:
            raise InputError(
                f"{file}: box_format {box_format.name} contradicts the columns. It must be {' or '.join(corners)}"
            )
        table = cls(file, split, header, delimiter, _class_descriptions(file.parent), options.images)
        table._read()
        table._check_images_and_splits()
        return table

    def _read(self) -> None:
        lines = list(self._lines())
        self._has_decimal_commas = self.delimiter != "," or any(
            _DECIMAL_COMMA.fullmatch(cells[index].strip())
            for cells, _ in lines
            for index in self.header.box
            if len(self.header.box) > 1 and index < len(cells)
        )
        width = len(lines[0][0]) if lines else 0
        for cells, where in lines[1:]:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < width or any(cell.strip() for cell in cells[width:]):
                self._add_unreadable(cells, f"{where}: must have {width} cells, got {len(cells)}")
            else:
                self._add(cells, where)
        self._assign_unreadable()

    def _lines(self) -> Iterator[tuple[_Line, str]]:
        """Yield the cells of each line and its position, the header first."""
        text = read_text(self.file)
        first, _, rest = text.partition("\n")
        stated = _DELIMITER_LINE.fullmatch(first.strip())
        reader = csv.reader(io.StringIO(rest if stated else text, newline=""), delimiter=self.delimiter)
        try:
            for cells in reader:
                yield cells, f"{self.file}, line {reader.line_num + bool(stated)}"
        except csv.Error as error:
            self.reasons.append(f"{self.file}, line {reader.line_num}: not a table ({error})")

    def _add_unreadable(self, cells: _Line, message: str) -> None:
        """Note a line that can't be read, with the name of its image if it has one."""
        name = plain_path(cells[self.header.file].strip()) if self.header.file < len(cells) else ""
        self.unreadable.append((name, message))

    def _assign_unreadable(self) -> None:
        """Add the lines that can't be read: to the records of their images, which may come later in the file."""
        by_name = {name: record for (_, name), record in self.records.items()}
        for name, message in self.unreadable:
            if name in by_name:
                by_name[name].unreadable.append(message)
            else:
                self.problems.append(Problem("unreadable annotation", message))

    def _check_images_and_splits(self) -> None:
        """Add problems of the whole file: splits without a single image file, and unknown splits alone."""
        missing = [split for split in self.finders if not self._has_images(split)]
        if missing:
            folders = dict.fromkeys(folder for split in missing for folder in self.finders[split].folders)
            first = next(record.path for (split, _), record in self.records.items() if split == missing[0])
            similar = name_in_other_case(first)
            self.reasons.append(
                f"{self.file}: its images are in none of these folders, nor below them: {', '.join(map(str, folders))}; "
                f"for example {first.name}. "
                + (
                    f"Did you mean {similar}?"
                    if similar
                    else "Put them in one of these, or name their folder with --images (data.images)"
                )
            )
        listed = ", ".join(map(shown, sorted(self.other_splits)[:_MAX_SPLITS_SHOWN]))
        if self.other_splits and not self.records:
            self.reasons.append(f"{self.file}: unknown splits {listed}. Name them train, validation and test")
        elif self.other_splits:
            lines = self.other_splits.total()
            message = (
                f"{self.file}: {lines} lines of other splits than train, validation and test are left out: {listed}"
            )
            self.problems.append(Problem("no split", message, count=lines))

    def _has_images(self, split: str) -> bool:
        records = [record for (name, _), record in self.records.items() if name == split]
        return any(os.path.isfile(record.path) for record in records[:_SAMPLE_IMAGES])

    def _add(self, cells: _Line, where: str) -> None:
        header = self.header
        file, label = plain_path(cells[header.file].strip()), cells[header.name].strip()
        if not file:
            self.problems.append(Problem("unreadable annotation", f"{where}: must name an image"))
            return
        problems: list[str] = []
        split = self._split(cells, file, where, problems)
        if split is None:
            return
        record, box_cells = self._record(split, file, cells, where), self._box_cells(cells)
        record.unreadable += problems
        if not any(box_cells):
            return
        box = parse_numbers(box_cells, 4)
        if box is None:
            got = ", ".join(cell or "nothing" for cell in box_cells)[:_MAX_CHARS_SHOWN]
            record.unreadable.append(f"{where}: a box must have four numbers, or none, got {got}")
        elif not label:
            record.unreadable.append(f"{where}: the box must have a class")
        else:
            columns = ((header.crowd, "crowd"), (header.difficult, "difficult"), (header.truncated, "truncated"))
            flags = Flags(
                *(
                    index is not None and parse_flag(cells[index], f"the {name} column", where, record.unreadable)
                    for index, name in columns
                )
            )
            record.add(box, self.classes.get(label, label), flags=flags)

    def _split(self, cells: _Line, file: str, where: str, problems: list[str]) -> str | None:
        """Return the split of a line, None for an unknown split or a problem."""
        if self.header.split is None:
            return self.split
        word = cells[self.header.split].strip()
        split = split_of(word)
        if not word:
            message = f"{where}: the split must be train, validation or test, got nothing"
            self.problems.append(Problem("unreadable annotation", message))
            return None
        if split is None:
            self.other_splits[word] += 1
            self.images_of_other_splits[file] = None
            return None
        first = self.split_by_image.setdefault(file, split)
        if split != first:
            problems.append(
                f"{where}: the image {shown(file)} is in {split}, and in {first} before. Use one split for it"
            )
        return first

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
                self.finders[split] = ImageFinder(image_root(self.file), folders, split, self.images)
            problems: list[str] = []
            path = self.finders[split].find(file, where, problems)
            sides = parse_numbers([self._number(cells[index]) for index in self.header.size or ()], 2) or (None, None)
            self.records[key] = Record.with_size(path, len(self.records), *sides)
            self.records[key].doubts += problems
            self.records[key].stated = file
        return self.records[key]

    def _number(self, cell: str) -> str:
        """Return the text of a number for `float`, with a decimal point."""
        return cell.strip().replace(",", ".") if self._has_decimal_commas else cell.strip()


def _image_folders(file: Path, split: str) -> list[Path]:
    """Return the folders where the images of a table usually are, the nearest first.

    These are its folder and the parent, `images/` in both, and folders named after the file or the split in each of
    them.
    """
    near = [parent / name for parent in (file.parent, file.parent.parent) for name in ("", "images")]
    words = [word for word in (file.stem, split, "val", "valid", "dev", "eval", "holdout") if split_of(word) == split]
    folders = dict.fromkeys([*near, *(folder / word for folder in near for word in words)])
    return [folder for folder in folders if folder.is_dir()]


def _class_descriptions(folder: Path) -> dict[str, str]:
    """Return Open Images' class names by label (`/m/011k07`), from the folder or its parent."""
    files = (file for parent in (folder, folder.parent) for file in files_in(parent, {".csv"}))
    file = next((file for file in files if "class-descriptions" in file.name), None)
    if file is None:
        return {}
    try:
        rows = list(csv.reader(io.StringIO(read_text(file))))
    except csv.Error as error:
        raise InputError(f"{file}: can't be read as a table of classes ({error})") from error
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
