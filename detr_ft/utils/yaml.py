"""A YAML file with the line of everything in it, so that a mistake can be told with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from detr_ft.errors import InputError

# What PyYAML lets through where a value doesn't fit its tag, written (`!!int x`) or guessed (the day 2001-99-99).
_UNFIT = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
_MOST_VALUES = 1_000_000
_LONGEST = 300  # letters of what PyYAML says

Place = tuple[str | int, ...]


def read_located(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """What a recipe's file says, and the line of each place in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such recipe") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
    values = parse_yaml(text, str(path))
    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    lines, twice = _lines(tree), list(_given_twice(tree))
    if not isinstance(values, dict):
        raise InputError(f"{path}: a recipe is a mapping with model, data and train")
    if twice:
        raise InputError(
            [f"{path}:{line}: {key} is given twice, and only one of them would count" for key, line in twice]
        )
    return values, lines


def parse_yaml(text: str, where: str) -> object:
    """What a YAML text says, as plain values. Raises InputError, which begins with `where`."""
    try:
        if _expanded(yaml.compose(text, Loader=yaml.SafeLoader), {}) > _MOST_VALUES:
            raise InputError(f"{where}: its aliases stand for more than {_MOST_VALUES:,} values; write them out")
        return yaml.safe_load(text)
    except RecursionError as error:
        raise InputError(f"{where}: not valid YAML: nested too deeply") from error
    except (yaml.YAMLError, *_UNFIT) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())[:_LONGEST]}") from error


def _expanded(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values a document holds once every alias is written out; `known` are those of nodes met before."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if known.get(id(node)) == 0:
        raise ValueError("an anchor of it refers to itself")
    if id(node) not in known:
        known[id(node)] = 0
        parts = [part for one in node.value for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def at(path: Path, lines: Mapping[Place, int], place: Place, message: str) -> str:
    """A message with its file, line and place."""
    known = place
    while known and known not in lines:
        known = known[:-1]
    line = f":{lines[known]}" if known else ""
    return f"{path}{line}: {'.'.join(map(str, place))}: {message}"


def _lines(node: yaml.Node | None, place: Place = ()) -> dict[Place, int]:
    """The line of every key and list item, counted from 1."""
    lines: dict[Place, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*place, key.value)] = key.start_mark.line + 1
            lines |= _lines(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            lines |= _lines(value, (*place, index))
    return lines


def _given_twice(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that a mapping holds more than once, with the line of the later."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for place, (key, value) in enumerate(node.value):
            if key.value in keys[:place]:
                yield key.value, key.start_mark.line + 1
            yield from _given_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _given_twice(value)
