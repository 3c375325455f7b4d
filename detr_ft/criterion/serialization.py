"""A criterion as plain data and back: what stands in a recipe and in a checkpoint's config.

A term is a mapping with `use`, the name of a class of this package, `file.py:Name` or `package.module:Name`, and its
parameters: `{use: BoxL1Cost, weight: 5}`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import detr_ft.criterion.box_losses as losses
import detr_ft.criterion.class_losses as class_losses
import detr_ft.criterion.costs as costs
import detr_ft.criterion.matchers as matchers
import detr_ft.criterion.set_criterion as set_criterion
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.utils.components import ConfigureError, _Builder, _describe

_BUILT_IN: dict[str, type] = {
    name: value
    for module in (costs, losses, class_losses, matchers, set_criterion)
    for name, value in vars(module).items()
    if inspect.isclass(value) and is_dataclass(value) and value.__module__ == module.__name__
}


def configure(description: Mapping[str, Any], folder: Path = Path()) -> SetCriterion:
    """The criterion that `{"matcher": {...}, "losses": [{...}, ...]}` describes; files of terms lie in `folder`.

    Raises ConfigureError with every mistake and its place.
    """
    problems: list[tuple[tuple[str | int, ...], str]] = []
    unknown = sorted(set(description) - {"matcher", "losses"})
    problems += [((key,), "a criterion has a matcher and losses, nothing else") for key in unknown]
    problems += [((key,), "is missing") for key in ("matcher", "losses") if key not in description]
    build = _Builder(_BUILT_IN, folder, problems)
    built = {key: build(description[key], (key,)) for key in ("matcher", "losses") if key in description}
    if not problems and not (isinstance(built["losses"], list) and built["losses"]):
        problems.append((("losses",), "needs a list of at least one loss"))
    if problems:
        raise ConfigureError(problems)
    try:
        return SetCriterion(built["matcher"], built["losses"])
    except (TypeError, ValueError) as error:
        raise ConfigureError([(("losses",), str(error))]) from error


def describe(criterion: SetCriterion) -> dict[str, Any]:
    """The reverse of `configure`: `configure(describe(criterion)) == criterion`."""
    return {"matcher": _describe(criterion.matcher), "losses": [_describe(loss) for loss in criterion.losses]}
