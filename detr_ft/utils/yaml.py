"""Parse YAML with the line of every key, for messages with a position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from detr_ft.errors import InputError
from detr_ft.utils.files import check_regular

# Raised by PyYAML for a value that does not fit its tag, explicit (`!!int x`) or implicit (the date 2001-99-99).
_VALUE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
_MAX_VALUES = 1_000_000  # of a document with its aliases expanded
_MAX_REASON_CHARS = 300
_MAX_BYTES = 4 << 20  # of a recipe
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

KeyPath = tuple[str | int, ...]


def read_located(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    """Return the values of a recipe file and the line of each key path. Raises InputError."""
    try:
        check_regular(path)
        text = _read_text(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: {_file_for_folder(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
    values, tree = _parse(text, str(path))
    lines: dict[KeyPath, int] = {}
    _add_lines(tree, (), lines)
    duplicates = list(_duplicate_keys(tree))
    if not isinstance(values, dict):
        raise InputError(f"{path}: a recipe must be a mapping with model, data and train")
    if duplicates:
        raise InputError([f"{path}:{line}: {key} occurs twice. Remove one of them" for key, line in duplicates])
    return values, lines


def _file_for_folder(folder: Path) -> str:
    """Return what is wrong with a folder in place of a recipe, and how to get its recipe."""
    recipes = sorted(folder.glob("*.yaml"))
    if len(recipes) == 1 and recipes[0].stem == "recipe":
        return f"is a folder. Give the recipe in it, {recipes[0]}"
    return f"is a folder, and a recipe is a file. If it has data, write a recipe for them: detr-ft new {folder}"


def _read_text(path: Path) -> str:
    """Return a text in UTF-8, or in UTF-16 with a byte order mark. Raises InputError for a large file."""
    with path.open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InputError(
            f"{path}: is larger than {_MAX_BYTES >> 20} MiB, which no recipe is. Give the recipe, not data"
        )
    return content.decode("utf-16" if content[:2] in _UTF_16_MARKS else "utf-8-sig")


def parse_yaml(text: str, where: str) -> object:
    """Return the plain values of a YAML text. Raises InputError that begins with `where`."""
    return _parse(text, where)[0]


def _parse(text: str, where: str) -> tuple[object, yaml.Node | None]:
    """Return the plain values of a YAML text, and its nodes. Raises InputError that begins with `where`."""
    try:
        loader = yaml.SafeLoader(text)
        tree = loader.get_single_node()
        if _num_expanded(tree, {}) > _MAX_VALUES:
            raise InputError(f"{where}: its aliases expand to more than {_MAX_VALUES:,} values. Write them out")
        return None if tree is None else loader.construct_document(tree), tree
    except RecursionError as error:
        raise InputError(f"{where}: not valid YAML: nested too deeply") from error
    except (yaml.YAMLError, *_VALUE_ERRORS) as error:
        raise InputError(f"{where}: not valid YAML: {' '.join(str(error).split())[:_MAX_REASON_CHARS]}") from error


def _num_expanded(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Return the number of values in a document with aliases expanded; `known` is of visited nodes."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if known.get(id(node)) == 0:
        raise ValueError("an anchor refers to itself")
    if id(node) not in known:
        known[id(node)] = 0
        parts = [part for child in node.value for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_num_expanded(part, known) for part in parts)
    return known[id(node)]


def located_message(path: Path, lines: Mapping[KeyPath, int], keys: KeyPath, message: str) -> str:
    """Return a message with file, line and key path; the line of the nearest parent for a missing key."""
    line = nearest_line(lines, keys)
    return f"{path}{f':{line}' if line else ''}: {'.'.join(map(str, keys))}: {message}"


def nearest_line(lines: Mapping[KeyPath, int], keys: KeyPath) -> int | None:
    """Return the line of a key or of its nearest parent, None if there is none."""
    while keys and keys not in lines:
        keys = keys[:-1]
    return lines[keys] if keys else None


def _add_lines(node: yaml.Node | None, keys: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Add the line of every key and list item, counted from 1."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*keys, key.value)] = key.start_mark.line + 1
            _add_lines(value, (*keys, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*keys, index)] = value.start_mark.line + 1
            _add_lines(value, (*keys, index), lines)


def _duplicate_keys(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Yield keys that occur twice in a mapping, with the line of the second one."""
    if isinstance(node, yaml.MappingNode):
        names: set[object] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    yield key.value, key.start_mark.line + 1
                names.add(key.value)
            yield from _duplicate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _duplicate_keys(value)
