"""The contract of a source: the functions of its module, and the result of reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat


@dataclass(frozen=True)
class SourceData:
    """A data set in the schema, and the class name of each category id if the files have such ids (COCO)."""

    splits: DatasetDict
    category_ids: Mapping[int, str] = field(default_factory=dict)


class PathSource(Protocol):
    """The functions in the module of a source that reads files."""

    def recognizes(self, path: Path) -> bool:
        """Return whether an existing file or folder has this source's format, reading as little as possible."""
        ...

    def read(self, path: Path, box_format: BoxFormat | None) -> SourceData:
        """Read the data set at an existing path. Raises InputError with all problems.

        Raises UnknownClassError if the only problems are undeclared classes. `box_format` is the user's choice; it is
        None for a source that does not take it.
        """
        ...


class NameSource(Protocol):
    """The function in the module of a source whose data sets have names instead of paths."""

    def read(self, name: str, box_format: BoxFormat | None) -> SourceData:
        """Read the data set of this name, with the contract of `PathSource.read`."""
        ...
