"""A criterion as plain data and back, for recipes and checkpoints, and the names of terms in them.

A term is a mapping with its parameters and `use`: the name of a class of this package, `file.py:Name` or
`package.module:Name`, as in `{use: BoxL1Cost, weight: 5}`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from detr_ft.criterion import box_losses, class_losses, costs, matchers, sigmoid_losses
from detr_ft.criterion.base import Loss, check_weight
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.criterion.matchers import costs_of
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Activation
from detr_ft.utils.components import ConfigureError, KeyPath, ObjectBuilder, as_description

_KEYS = {"matcher", "losses"}

TERMS: Mapping[str, type] = {
    name: value
    for module in (costs, box_losses, class_losses, sigmoid_losses, matchers)
    for name, value in vars(module).items()
    if inspect.isclass(value) and is_dataclass(value) and value.__module__ == module.__name__
}
# Terms that exist in several forms, by the name that stands for any of them in a recipe.
FORMS: Mapping[str, Mapping[Activation, type]] = {
    "FocalCost": {"softmax": costs.SoftmaxFocalCost, "sigmoid": costs.SigmoidFocalCost},
    "FocalLoss": {"softmax": class_losses.SoftmaxFocalLoss, "sigmoid": sigmoid_losses.SigmoidFocalLoss},
    "QualityFocalLoss": {
        "softmax": class_losses.SoftmaxQualityFocalLoss,
        "sigmoid": sigmoid_losses.SigmoidQualityFocalLoss,
    },
    "VarifocalLoss": {"softmax": class_losses.SoftmaxVarifocalLoss, "sigmoid": sigmoid_losses.SigmoidVarifocalLoss},
    "MatchabilityLoss": {
        "softmax": class_losses.SoftmaxMatchabilityLoss,
        "sigmoid": sigmoid_losses.SigmoidMatchabilityLoss,
    },
}


# Terms without another form, with the term that replaces them for the other activation.
_REPLACEMENTS: Mapping[type, type] = {
    class_losses.CrossEntropyLoss: sigmoid_losses.SigmoidFocalLoss,
    sigmoid_losses.IoUAwareLoss: class_losses.SoftmaxMatchabilityLoss,
}


def built_in_terms(activation: Activation = "softmax") -> dict[str, type]:
    """The classes of this package by their names in recipes; a plain name is its form for `activation`."""
    plain = {name: forms[activation] for name, forms in FORMS.items() if activation in forms}
    return {**TERMS, **plain}


def configure(
    description: Mapping[str, Any], folder: Path | None = None, activation: Activation = "softmax"
) -> SetCriterion:
    """Build the criterion that `{"matcher": {...}, "losses": [{...}, ...]}` describes.

    Files of terms are relative to `folder`; without one the terms are those of this package. `activation` is that of the
    model and selects the form of plain names such as `FocalLoss`. Raises ConfigureError with the path and the message of
    every mistake.
    """
    problems: list[tuple[KeyPath, str]] = [
        ((key,), "unknown key; a criterion has matcher and losses") for key in sorted(set(description) - _KEYS)
    ]
    problems += [((key,), "is missing") for key in sorted(_KEYS - set(description), reverse=True)]
    build = ObjectBuilder(built_in_terms(activation), folder, problems)
    built = {key: build(description[key], (key,)) for key in ("matcher", "losses") if key in description}
    if not problems and not (isinstance(built["losses"], list) and built["losses"]):
        problems.append((("losses",), "needs a list of at least one loss"))
    if isinstance(built.get("losses"), list):
        problems += _wrong_weights(built["losses"])
    if problems:
        raise ConfigureError(problems)
    try:
        return SetCriterion(built["matcher"], built["losses"])
    except (TypeError, ValueError) as error:
        raise ConfigureError([(("losses",), str(error))]) from error


def _wrong_weights(losses: list[Any]) -> list[tuple[KeyPath, str]]:
    """Return a problem for each loss whose weight is invalid."""
    problems: list[tuple[KeyPath, str]] = []
    for index, loss in enumerate(losses):
        if isinstance(loss, Loss):
            try:
                check_weight(loss)
            except ValueError as error:
                problems.append((("losses", index), str(error)))
    return problems


def describe(criterion: SetCriterion) -> dict[str, Any]:
    """The reverse of `configure`, with explicit names: `configure(describe(criterion)) == criterion`."""
    return {
        "matcher": as_description(criterion.matcher),
        "losses": [as_description(loss) for loss in criterion.losses],
    }


def explicit_names(description: Any) -> Any:
    """Return the description with the names of the softmax forms in place of plain names.

    Earlier versions recorded plain names.
    """
    if isinstance(description, list):
        return [explicit_names(item) for item in description]
    if not isinstance(description, Mapping):
        return description
    explicit = {key: explicit_names(value) for key, value in description.items()}
    use = explicit.get("use")
    if isinstance(use, str) and use in FORMS:
        explicit["use"] = FORMS[use]["softmax"].__name__
    return explicit


def check_activation(criterion: object, activation: Activation) -> None:
    """Raise CriterionError with every cost and loss that does not support the activation of a model."""
    problems = unsupported_terms(criterion, activation)
    if problems:
        raise CriterionError(problems)


def unsupported_terms(criterion: object, activation: Activation) -> list[str]:
    """Return a message for each cost and loss that does not support the activation of a model.

    Terms without the attribute `activations`, and criteria of other classes, are not checked.
    """
    if not isinstance(criterion, SetCriterion):
        return []
    terms: list[Any] = [*costs_of(criterion.matcher), *criterion.losses]
    return [
        f"{type(term).__name__} is for {' and '.join(sorted(term.activations))} scores, but the model has {activation} "
        f"scores. Use {_counterpart(type(term), activation)}."
        for term in terms
        if activation not in getattr(term, "activations", {activation})
    ]


def _counterpart(kind: type, activation: Activation) -> str:
    for forms in FORMS.values():
        if kind in forms.values() and activation in forms:
            return forms[activation].__name__
    replacement = _REPLACEMENTS.get(kind)
    return replacement.__name__ if replacement else f"a term whose `activations` contain {activation!r}"
