"""What has changed since a checkpoint was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset

# A run may be moved, shown otherwise or published under another name without becoming another run.
_OF_NO_MATTER = ("folder", "recipe.train.output_dir", "recipe.hub", "recipe.train.save_total_limit")
_VITAL = ("classes", "data")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The differences between the facts of a checkpoint and those of now, in words: the vital ones, and the others.

    Classes and training data are vital: with others, the weights would mean something else.
    """
    before, after = dict(_flat(then)), dict(_flat(now))
    changed = [key for key in (before | after) if before.get(key) != after.get(key) and not _of_no_matter(key)]
    said = {key: _words(key, before.get(key), after.get(key)) for key in changed}
    vital = [words for key, words in said.items() if key.split(".")[0] in _VITAL]
    return vital, [words for key, words in said.items() if key.split(".")[0] not in _VITAL]


def fingerprint(split: Dataset) -> str:
    """A number for what a split says of its images: ids, sizes and objects, in their order. Pixels are not looked at."""
    sums = hashlib.sha256()
    for table in split.with_format("arrow").select_columns(["image_id", "width", "height", "objects"]).iter(1000):
        sums.update(json.dumps(table.to_pydict()).encode())
    return sums.hexdigest()


def _of_no_matter(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _OF_NO_MATTER)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _words(key: str, before: Any, after: Any) -> str:
    if key == "data.fingerprint":
        return "the training data are others (images, sizes or objects)"
    return f"{key.removeprefix('recipe.')} was {_short(before)}, is {_short(after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
