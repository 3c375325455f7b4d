"""Generate scenes as a data set."""

from __future__ import annotations

from detr_ft.data.generated.generate import generate
from detr_ft.data.sources.base import ReadOptions, SourceData


def read(name: str, options: ReadOptions) -> SourceData:
    """Generate the data set `NAME?option=value&...`; see `generate`."""
    return SourceData(generate(name))
