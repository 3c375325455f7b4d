"""Reads tables on this machine: Parquet files, and what `datasets` saved with `save_to_disk`."""

from __future__ import annotations

import logging
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.record import split_of, split_of_folder
from detr_ft.data.sources.tables.rows import loading, to_schema
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def read_parquet(path: Path, format: BoxFormat | None = None) -> DatasetDict:
    """The data set of a Parquet file, or of all those below a folder; relative paths of images start beside the file."""
    files = parquet_files(path)
    if not files:
        raise InputError(f"{path}: no .parquet file found, neither there nor in subfolders")
    with loading(f"parquet:{path}"):
        raw = load_dataset("parquet", data_files={split: list(map(str, paths)) for split, paths in files.items()})
    return to_schema(raw, f"parquet:{path}", format, image_places(path, files))


def read_saved(folder: Path, format: BoxFormat | None = None) -> DatasetDict:
    """The data set that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; a single one is the train split."""
    raw = saved_tables(folder, f"saved:{folder}")
    return to_schema(raw, f"saved:{folder}", format, {split: [folder.absolute()] for split in raw})


def saved_tables(folder: Path, origin: str) -> dict[str, Dataset]:
    """The tables of a folder of `save_to_disk`, memory-mapped."""
    if not is_saved(folder):
        raise InputError(f"{origin}: not a folder that save_to_disk wrote: there is no dataset_dict.json or state.json")
    with loading(origin):
        saved = load_from_disk(str(folder))
    return dict(saved) if isinstance(saved, DatasetDict) else {"train": saved}


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def parquet_files(path: Path) -> dict[str, list[Path]]:
    """The Parquet files of each split: by a file's own name, else by the folders around it; all train where none says.

    Names are those of `datasets`: `train-00000-of-00002.parquet`, `validation/0000.parquet`.
    """
    if path.is_file():
        return {split_of(path.stem) or split_of_folder(path.parent) or "train": [path]}
    files: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        inside = file.relative_to(path)
        if not any(part.startswith(".") for part in inside.parts):
            folders = (split_of_folder(folder) for folder in inside.parents)
            split = split_of(file.stem) or next((split for split in folders if split), None)
            files.setdefault(split or "", []).append(file)
    nameless = files.pop("", [])
    if nameless and not files:
        return {"train": nameless}
    for file in nameless:
        log.warning("%s: its name tells no split, and it is left out", file)
    return files


def image_places(path: Path, files: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Where relative paths of each split's images may start: the folders of its files, then the data set's own."""
    whole = [path] if path.is_dir() else []
    parents = {split: [*(file.parent for file in paths), *whole] for split, paths in files.items()}
    return {split: list(dict.fromkeys(place.absolute() for place in places)) for split, places in parents.items()}
