"""Objects whose class is none of the data set's: whoever trains gets an error, and the doctor goes on and reports them."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import DatasetDict

from detr_ft.data.sources.problems import told
from detr_ft.errors import InputError

UNKNOWN = -1  # the category of such an object, as `datasets` writes what has no label

Place = tuple[str, int, int]  # an object: its split, the image's row, its place among the image's objects


class UnknownClassError(InputError):
    """The data set was read, but for the classes of some objects, which are none of its own.

    In `data` these have the category -1; `faults` says of each where it stands and which class it states.
    """

    def __init__(self, data: DatasetDict, faults: Mapping[Place, str]) -> None:
        self.data, self.faults = data, dict(faults)
        super().__init__(told(list(faults.values())))
