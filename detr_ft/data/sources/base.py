"""The contract of a source: what its module defines, and what reading gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from datasets import DatasetDict

from detr_ft.data.box_format import BoxFormat


@dataclass(frozen=True)
class SourceData:
    """A data set in the schema; `category_ids` are the names of the classes by the ids of a COCO file, else empty."""

    splits: DatasetDict
    category_ids: Mapping[int, str] = field(default_factory=dict)


class PathSource(Protocol):
    """The functions that the module of a source of files defines."""

    def recognizes(self, path: Path) -> bool:
        """Whether a file or folder, which exists, looks like this source's; decided by as little of it as is needed."""
        ...

    def read(self, path: Path, box_format: BoxFormat | None) -> SourceData:
        """Read the data set at a path. Raises InputError with all problems, UnknownClassError for unknown classes alone.

        `box_format` is None where the user gives none, and always for a source that does not take it.
        """
        ...


class NameSource(Protocol):
    """The function that the module of a source defines whose data sets have names, and not paths."""

    def read(self, name: str, box_format: BoxFormat | None) -> SourceData:
        """As `PathSource.read`."""
        ...
