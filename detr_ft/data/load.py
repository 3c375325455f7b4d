"""Read a data set, and remember its specification for as long as the data are as they were read."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from datasets import DatasetDict

from detr_ft.data.sources import load as sources
from detr_ft.data.sources.registry import parse_spec

P = ParamSpec("P")


@dataclass(frozen=True)
class Specification:
    """The source of a data set as `load_data` takes it, and the other arguments with which it was read."""

    source: str
    options: Mapping[str, Any]


# By name and fingerprint of each split. A split that is changed has another fingerprint (select, filter, map, set_format).
_SPECIFICATIONS: dict[frozenset[tuple[str, str]], Specification] = {}


def specification_of(data: DatasetDict) -> Specification | None:
    """Return the specification of unchanged data of `load_data`, None for other data."""
    return _SPECIFICATIONS.get(_key(data))


def _remembering(read: Callable[P, DatasetDict]) -> Callable[P, DatasetDict]:
    @functools.wraps(read)
    def read_and_remember(*args: P.args, **kwargs: P.kwargs) -> DatasetDict:
        data = read(*args, **kwargs)
        given = inspect.signature(read).bind(*args, **kwargs)
        given.apply_defaults()
        options = dict(given.arguments)
        source = _from_base(os.fspath(options.pop("spec")), Path(options.pop("base")))
        _SPECIFICATIONS[_key(data)] = Specification(source, options)
        return data

    return read_and_remember


load_data = _remembering(sources.load_data)


def _key(data: DatasetDict) -> frozenset[tuple[str, str]]:
    return frozenset((name, split._fingerprint) for name, split in data.items())


def _from_base(spec: str, base: Path) -> str:
    """Return a specification whose path starts at the current folder."""
    if base == Path():
        return spec
    source, location = parse_spec(spec, base)
    if source is not None and source.follows != "PATH":
        return spec
    return f"{source.name}:{base / location}" if source is not None else str(base / location)
