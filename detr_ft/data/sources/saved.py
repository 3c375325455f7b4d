"""Read data sets that `datasets` saved with `save_to_disk`."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, DatasetDict, load_from_disk

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.table_rows import load_errors, to_schema
from detr_ft.errors import InputError


def recognizes(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    single = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return single or (path / "dataset_dict.json").is_file()


def read(folder: Path, options: ReadOptions) -> SourceData:
    """Read a folder of `DatasetDict.save_to_disk`, or of `Dataset.save_to_disk` as the train split."""
    raw = saved_tables(folder, f"saved:{folder}")
    start = (options.images or folder).absolute()
    return to_schema(raw, f"saved:{folder}", options.box_format, {split: [start] for split in raw})


def saved_tables(folder: Path, origin: str) -> dict[str, Dataset]:
    """Return the tables of a folder of `save_to_disk`, memory-mapped."""
    if not recognizes(folder):
        raise InputError(f"{origin}: not a folder of save_to_disk, must have dataset_dict.json or state.json")
    with load_errors(origin):
        saved = load_from_disk(str(folder))
    return dict(saved) if isinstance(saved, DatasetDict) else {"train": saved}
