"""Read an image folder of `datasets`: images beside a `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.sources import csv_table, parquet
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.box_reading import convert_boxes
from detr_ft.data.sources.conversion import sort_naturally, to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.listing import split_folders
from detr_ft.data.sources.parsing import is_id, parse_json, read_lines
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.table_columns import BOX_KEYS, CATEGORY_KEYS, add_objects, as_columns, as_lists
from detr_ft.errors import InputError

_OTHER_METADATA = {"metadata.csv": csv_table.read, "metadata.parquet": parquet.read}


def recognizes(path: Path) -> bool:
    """Return whether a path is a `.jsonl` file, or a folder with a `metadata.jsonl` or one for a split."""
    return path.suffix.lower() == ".jsonl" if path.is_file() else bool(_metadata_files(path))


def read(folder: Path, options: ReadOptions) -> SourceData:
    """Read a folder with one `metadata.jsonl` (or .csv, .parquet), or one for each split.

    Classes are sorted. A line has `file_name` and `objects: {bbox, category}`, lists of equal length, with boxes in
    `box_format`, by default in the recognized one. Whole numbers as categories become the names "0", "1", ... Optional
    are `width`, `height`, `image_id`, and of objects `id`, `area`, `iscrowd`, `difficult`, `truncated`.
    """
    files = _metadata_files(folder) if folder.is_dir() else {"train": [folder]}
    if not files:
        for name, read_other in _OTHER_METADATA.items():
            if any((parent / name).is_file() for parent in (folder, *(child for _, child in split_folders(folder)))):
                return read_other(folder, options)
        raise InputError(f"{folder}: no metadata.jsonl, neither there nor in train/, validation/, test/")
    reader = _Reader(options.images)
    splits = {split: list(reader.read(paths)) for split, paths in files.items()}
    raise_all([reason for finder in reader.finders.values() for reason in finder.all_missing(folder)])
    for finder in reader.finders.values():
        finder.log_substitutes(folder)
    records = [record for some in splits.values() for record in some]
    convert_boxes(records, f"folder:{folder}", options.box_format)
    names = sort_naturally(used_names(splits) - {""})
    split_by = "the folders of the metadata files" if len(files) > 1 else None
    return to_source_data(splits, names, folder, reader.problems, split_by=split_by)


def _metadata_files(folder: Path) -> dict[str, list[Path]]:
    """Return the `metadata.jsonl` files of each split; empty if there is none.

    That of the folder itself is train.
    """
    files: dict[str, list[Path]] = {}
    for split, child in split_folders(folder):
        if (child / "metadata.jsonl").is_file():
            files.setdefault(split, []).append(child / "metadata.jsonl")
    whole = folder / "metadata.jsonl"
    if whole.is_file():
        files.setdefault("train", []).append(whole)
    return files


@dataclass
class _Reader:
    """Converts lines to records; collects problems of no record."""

    images: Path | None
    problems: list[Problem] = field(default_factory=list)
    finders: dict[Path, ImageFinder] = field(default_factory=dict)

    def read(self, paths: Sequence[Path]) -> Iterator[Record]:
        """Yield the records of a split."""
        lines = [(path, number, line) for path in paths for number, line in enumerate(read_lines(path), start=1)]
        seen_ids: set[int] = set()
        for image_id, (path, number, line) in enumerate(lines):
            where = f"{path}, line {number}"
            record = self._record(line, path.parent, image_id, where) if line.strip() else None
            if record is None:
                continue
            if record.image_id in seen_ids:
                self.problems.append(Problem("repeated id", f"{where}: image id {record.image_id} occurs twice"))
                record.image_id = max(seen_ids) + 1
            seen_ids.add(record.image_id)
            yield record

    def _record(self, line: str, folder: Path, image_id: int, where: str) -> Record | None:
        try:
            row = parse_json(line)
        except ValueError as error:
            self.problems.append(Problem("unreadable annotation", f"{where}: {error}"))
            return None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            message = f"{where}: must be a mapping with file_name and objects"
            self.problems.append(Problem("unreadable annotation", message))
            return None
        finder = self.finders.setdefault(folder, ImageFinder(folder, [folder], images=self.images))
        problems: list[str] = []
        path = finder.find(row["file_name"], where, problems)
        image_id = row["image_id"] if is_id(row.get("image_id")) else image_id
        record = Record.with_size(path, image_id, row.get("width"), row.get("height"))
        record.doubts += problems
        record.stated = row["file_name"]
        has_boxes = any(key in row for key in BOX_KEYS)
        objects = as_lists(row["objects"]) if "objects" in row else as_columns(row) if has_boxes else None
        if isinstance(objects, dict):
            add_objects(record, objects, (_key(BOX_KEYS, objects), _key(CATEGORY_KEYS, objects)), None, where)
        else:
            record.unreadable.append(
                f"{where}: must have objects with the lists bbox and category, or objects: null without objects"
            )
        return record


def _key(keys: Sequence[str], objects: Mapping[str, object]) -> str:
    return next((key for key in keys if key in objects), keys[0])
