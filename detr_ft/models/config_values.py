"""Checks of the values in a checkpoint's JSON files: types, sizes and finite numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from detr_ft.errors import InputError

_MAX_CLASSES = 100_000
_MAX_LAYERS = 1000
_MAX_SIZE = 1_000_000  # of any other whole number in a config
_MAX_SIDE_PX = 32_768
_MIN_PARAMETERS = 100_000_000  # smaller models fit into any memory
_LAYERS = ("layers", "depths")
# Keys whose values are neither sizes nor settings of a model.
_OTHER_KEYS = ("detr_ft", "id2label", "label2id", "task_specific_params")
_SIDES = ("size", "pad_size", "crop_size")


def check_config(checkpoint: str, config: object) -> Mapping[str, Any]:
    """Return the content of a `config.json`. Raises InputError with every value that no model can have."""
    if not isinstance(config, Mapping):
        raise InputError(f"{checkpoint}: config.json must be a mapping, got {type(config).__name__}. Restore the file.")
    faults = [*_faults_of_labels(config), *_faults_of_sizes(config, "")]
    if faults:
        raise InputError([f"{checkpoint}: config.json: {fault}. Correct the file." for fault in faults])
    return config


def check_processor(checkpoint: str, processor: Any) -> None:
    """Raise InputError with every invalid side, mean and standard deviation of an image processor."""
    faults = [fault for key in _SIDES for fault in _faults_of_sides(key, getattr(processor, key, None))]
    for key in ("image_mean", "image_std"):
        values = getattr(processor, key, None)
        if getattr(processor, "do_normalize", False) and not _are_channels(values, positive=key == "image_std"):
            kind = "positive numbers" if key == "image_std" else "finite numbers"
            faults.append(f"{key} must be three {kind}, got {values!r}")
    if faults:
        raise InputError([f"{checkpoint}: preprocessor_config.json: {fault}. Correct the file." for fault in faults])


def check_memory(checkpoint: str, parameters: int, weights: int) -> None:
    """Raise InputError for a model with several times as many parameters as its weights have."""
    if parameters > _MIN_PARAMETERS and parameters > 2 * weights:
        raise InputError(
            f"{checkpoint}: its config.json describes a model of {parameters:,} parameters, but its weights have {weights:,}. "
            "They do not belong together."
        )


def _faults_of_labels(config: Mapping[str, Any]) -> Iterator[str]:
    names, indices, classes = config.get("id2label"), config.get("label2id"), config.get("num_labels")
    if names is not None:
        if not isinstance(names, Mapping):
            yield f"id2label must be a mapping of ids to names, got {type(names).__name__}"
        elif len(names) > _MAX_CLASSES:
            yield f"id2label has {len(names):,} classes, more than {_MAX_CLASSES:,}"
        else:
            wrong = [(key, name) for key, name in names.items() if not (_is_id(key) and isinstance(name, str))]
            yield from (f"id2label must have ids and names, got {key!r}: {name!r}" for key, name in wrong[:3])
    if indices is not None:
        if not isinstance(indices, Mapping):
            yield f"label2id must be a mapping of names to ids, got {type(indices).__name__}"
        else:
            others = [(name, index) for name, index in indices.items() if not _is_id(index)]
            yield from (f"label2id must have names and ids, got {name!r}: {index!r}" for name, index in others[:3])
    if classes is not None and not (type(classes) is int and 0 <= classes <= _MAX_CLASSES):
        yield f"num_labels must be a whole number up to {_MAX_CLASSES:,}, got {classes!r}"


def _is_id(value: object) -> bool:
    """Return whether a value is a class id, also as text, as the keys of JSON are."""
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10)


def _faults_of_sizes(value: Any, name: str) -> Iterator[str]:
    """Yield a fault for each whole number in a config that is too large for a size or a number of layers."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _OTHER_KEYS:
                yield from _faults_of_sizes(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _faults_of_sizes(item, name)
    elif isinstance(value, int):
        limit = _MAX_LAYERS if name.endswith(_LAYERS) else _MAX_SIZE
        if abs(value) > limit:
            yield f"{name} must be at most {limit:,}, got a number of {len(str(abs(value)))} digits"


def _faults_of_sides(key: str, sides: Any) -> Iterator[str]:
    if sides is None:
        return
    try:
        values = dict(sides)
    except (TypeError, ValueError):
        yield f"{key} must be a mapping of sides in pixels, got {sides!r}"
        return
    for side, value in values.items():
        if value is not None and not (type(value) is int and 0 < value <= _MAX_SIDE_PX):
            yield f"{key}.{side} must be whole pixels from 1 to {_MAX_SIDE_PX:,}, got {value!r}"


def _are_channels(values: Any, positive: bool) -> bool:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        return False
    return all(
        isinstance(value, (int, float)) and math.isfinite(value) and (value > 0 or not positive) for value in values
    )
