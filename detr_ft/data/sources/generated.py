"""Generate scenes as a data set."""

from __future__ import annotations

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.generated.generate import generate
from detr_ft.data.sources.base import SourceData


def read(name: str, box_format: BoxFormat | None) -> SourceData:
    """Generate the data set `NAME?option=value&...`; see `generate`."""
    return SourceData(generate(name))
