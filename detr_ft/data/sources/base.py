"""The contract of a source: the functions of its module, and the result of reading."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.problems import Problem, summarize
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadOptions:
    """The choices of a user about a data set beside its path.

    `box_format` is that of boxes in files that do not define it; by default it is recognized. `images` is the folder of
    the images; by default they are searched for near the annotations.
    """

    box_format: BoxFormat | None = None
    images: Path | None = None


@dataclass(frozen=True)
class SourceData:
    """A data set in the schema and the problems of its files.

    `splits` has every image with the objects that could be read. `category_ids` is the class name of each category id if
    the files have such ids (COCO). `unlabeled` are the rows of images with neither a label file nor a record, which are
    read as images without objects. `annotated` are the image files with annotations that are in no split.
    """

    splits: DatasetDict
    category_ids: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    unlabeled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    annotated: frozenset[Path] = frozenset()

    @property
    def refused(self) -> list[Problem]:
        """The problems that training refuses."""
        return [problem for problem in self.problems if problem.refused]

    def checked(self) -> DatasetDict:
        """Return the splits, and log what was not used.

        Raises DefectiveDataError if objects of an image can't be read.
        """
        if self.refused:
            raise DefectiveDataError(self)
        for line in summarize([problem.message for problem in self.problems]):
            log.warning("%s", line)
        return self.splits

    def defective_rows(self) -> dict[str, dict[int, str]]:
        """Return the first message on each image with refused problems, by split and row."""
        rows: dict[str, dict[int, str]] = {split: {} for split in self.splits}
        for problem in self.refused:
            if problem.split is not None and problem.row is not None:
                rows[problem.split].setdefault(problem.row, problem.message)
        return rows

    def without_rows(self, rows: Mapping[str, Collection[int]]) -> SourceData:
        """Return the data without some images and their problems; splits without other images are left out."""
        remaining = {
            split: [row for row in range(len(data)) if row not in rows.get(split, ())]
            for split, data in self.splits.items()
        }
        positions = {(split, row): index for split, indices in remaining.items() for index, row in enumerate(indices)}
        problems = tuple(
            replace(problem, row=positions.get((str(problem.split), problem.row or 0)))
            if problem.row is not None
            else problem
            for problem in self.problems
            if problem.row is None or (problem.split, problem.row) in positions
        )
        splits = {split: self.splits[split].select(indices) for split, indices in remaining.items() if indices}
        unlabeled = {
            split: tuple(positions[split, row] for row in some if (split, row) in positions)
            for split, some in self.unlabeled.items()
            if split in splits
        }
        return replace(self, splits=DatasetDict(splits), problems=problems, unlabeled=unlabeled)


class DefectiveDataError(InputError):
    """A data set whose files have objects that could not be read. `data` has what could."""

    def __init__(self, data: SourceData) -> None:
        self.data = data
        images = len({(problem.split, problem.row) for problem in data.refused if problem.count})
        advice = (
            f"{images} images have objects that can't be read, and would be learned as if these were not there. Correct "
            "the files, or leave the images out: detr-ft doctor DATA --fix COPY, or data.bad_images: skip"
        )
        super().__init__([*summarize([problem.message for problem in data.refused]), *([advice] if images else [])])


class PathSource(Protocol):
    """The functions in the module of a source that reads files."""

    def recognizes(self, path: Path) -> bool:
        """Return whether an existing file or folder has this source's format, reading as little as possible."""
        ...

    def read(self, path: Path, options: ReadOptions) -> SourceData:
        """Read the data set at an existing path, as far as it can be read.

        An object that can't be read, and one of an undeclared class, is a problem of the result. Raises InputError for
        files that are no data set of this format.
        """
        ...


class NameSource(Protocol):
    """The function in the module of a source whose data sets have names instead of paths."""

    def read(self, name: str, options: ReadOptions) -> SourceData:
        """Read the data set of this name, with the contract of `PathSource.read`."""
        ...
