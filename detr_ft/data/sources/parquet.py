"""Read Parquet files on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, load_dataset

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.listing import files_below, split_of, split_of_path
from detr_ft.data.sources.problems import Problem
from detr_ft.data.sources.table_rows import count_objects, load_errors, to_schema
from detr_ft.errors import InputError


def recognizes(path: Path) -> bool:
    """Return whether a path is a Parquet file, or a folder with one below it."""
    return path.suffix.lower() == ".parquet" if path.is_file() else bool(parquet_files(path))


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a Parquet file, or all below a folder; relative image paths start at the folder of the file."""
    files = parquet_files(path)
    if not files:
        raise InputError(f"{path}: no .parquet file, neither there nor in subfolders")
    with load_errors(f"parquet:{path}"):
        raw = load_dataset("parquet", data_files={split: list(map(str, paths)) for split, paths in files.items()})
    folders = image_folders(path, files)
    if options.images is not None:
        folders = {split: [options.images.absolute(), *some] for split, some in folders.items()}
    data = to_schema(raw, f"parquet:{path}", options.box_format, folders)
    return replace(data, problems=(*data.problems, *_without_split(path, files)))


def _without_split(path: Path, files: Mapping[str, Sequence[Path]]) -> Iterator[Problem]:
    """Yield a problem for each file below a folder that is in no split."""
    used = {file for some in files.values() for file in some}
    for file in () if path.is_file() else files_below(path, {".parquet"}):
        if file not in used:
            message = f"{file}: no split in its name; it is left out"
            yield Problem("no split", message, count=_count_objects(file))


def _count_objects(file: Path) -> int:
    with load_errors(f"parquet:{file}"):
        return count_objects(Dataset.from_parquet(str(file)))


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of each split, which is in a file's name or in its folders.

    Without any split all files are train. Names are those of `datasets`: `train-00000-of-00002.parquet`,
    `validation/0000.parquet`.
    """
    if path.is_file():
        return {"train": [path]}
    files: dict[str, list[Path]] = {}
    for file in files_below(path, {".parquet"}):
        files.setdefault(split_of(file.stem) or split_of_path(file, path) or "", []).append(file)
    without_split = files.pop("", [])
    if without_split and not files:
        return {"train": without_split}
    return files


def image_folders(path: Path, files: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Return the starts of relative image paths for each split: the folders of its files, then the root."""
    root = [path] if path.is_dir() else []
    parents = {split: [*(file.parent for file in paths), *root] for split, paths in files.items()}
    return {split: list(dict.fromkeys(map(Path.absolute, folders))) for split, folders in parents.items()}
