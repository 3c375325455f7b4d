"""Side effects of terms: inputs that they change in place, state between calls, and settings of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detr_ft.criterion.base import Cost
from detr_ft.criterion.checking.cases import Case
from detr_ft.criterion.matchers import costs_of
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, StepTotals, Targets

# Values that are computed once and that several terms read, with the field that they are computed from.
_COMPUTED = {"log_probabilities": "logits", "cxcywh": "boxes"}
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
}


def probe_effects(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Yield the side effects of each term of a criterion; those of a matcher only if its costs have none."""
    of_costs = [problem for cost in costs_of(criterion.matcher) for problem in probe_cost_effects(cost, case)]
    yield from of_costs
    if of_costs:
        return
    predictions, targets = _training_inputs(case)
    yield from _effects(criterion.matcher, predictions, targets)
    matches = criterion.matcher(copied(predictions), copied(targets))
    for loss in criterion.losses:
        yield from _effects(loss, predictions, targets, matches)


def probe_cost_effects(cost: Cost, case: Case) -> Iterator[str]:
    """Yield the side effects of a cost."""
    with torch.no_grad():
        yield from _effects(cost, *_training_inputs(case))


def copied(value: Any) -> Any:
    """Return a copy of predictions, targets or matches whose tensors are no leaves, as in training."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad).clone()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if not is_dataclass(value):
        return value
    return replace(value, **{field.name: copied(getattr(value, field.name)) for field in fields(value)})  # type: ignore[type-var]


def snapshot(*inputs: Predictions | Targets | Matches) -> dict[str, Tensor]:
    """Return a copy of the tensors in arguments of terms by their names, as in `targets.boxes`."""
    return {name: values.detach().clone() for value in inputs for name, values in _tensors(value)}


def describe_changes(before: Mapping[str, Tensor], *inputs: Predictions | Targets | Matches) -> str | None:
    """Return which arguments of a term differ from their snapshot, None if all are the same."""
    after = snapshot(*inputs)
    changed = [name for name, values in before.items() if not _same(values, after[name])]
    computed = {f"predictions.{name}": f"predictions.{source}" for name, source in _COMPUTED.items()}
    names = [name for name in changed if computed.get(name) not in changed]
    if not names:
        return None
    return f"changes {', '.join(names)} in place, which the other terms share. Compute on a copy, as in x = x * 2 or x.clone()"


@contextmanager
def settings_restored() -> Iterator[Callable[[], list[str]]]:
    """Restore torch's settings at the end of the context.

    The context is a function that returns the names of those that differ from the start.
    """
    before = {name: get() for name, (get, _) in _SETTINGS.items()}
    try:
        yield lambda: [name for name, (get, _) in _SETTINGS.items() if get() != before[name]]
    finally:
        for name, (_, restore) in _SETTINGS.items():
            restore(before[name])


def _training_inputs(case: Case) -> tuple[Predictions, Targets]:
    """The batch of a case with the totals of a step, as tensors."""
    labels = torch.bincount(case.targets.labels, minlength=case.predictions.num_classes).float()
    step = StepTotals(torch.tensor(float(len(case.targets.counts))), labels)
    return case.predictions, replace(case.targets, num_boxes=step.num_boxes, step=step)


def _effects(term: Any, *inputs: Any) -> Iterator[str]:
    """Yield the side effects of a term that is called twice, each time with copies of its inputs."""
    name, arguments = type(term).__name__, [copied(value) for value in inputs]
    before = snapshot(*arguments)
    with settings_restored() as changed_settings:
        first = term(*arguments)
        settings = changed_settings()
        again = term(*(copied(value) for value in inputs))
    changes = describe_changes(before, *arguments)
    if settings:
        yield f"{name}: changes torch's {', '.join(settings)} for the whole process. Restore it before returning"
    elif changes:
        yield f"{name}: {changes}"
    elif not _equal(first, again):
        yield (
            f"{name}: returns other values when it is called again with the same inputs. A term has no state and no random "
            "numbers, because training resumes and a failed step is repeated without them"
        )


def _tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of an argument by name, and those that it computes once for several terms."""
    root = type(value).__name__.lower()
    for field in fields(value):
        yield from _tensors_in(getattr(value, field.name), f"{root}.{field.name}")
    if isinstance(value, Predictions):
        yield from ((f"{root}.{name}", getattr(value, name)) for name in _COMPUTED)


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors_in(item, f"{name}[{key!r}]")
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors_in(getattr(value, field.name), f"{name}.{field.name}")


def _same(before: Tensor, after: Tensor) -> bool:
    """Return whether tensors are the same in shape, type and every bit, NaN included."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return bool(((before == after) | ((before != before) & (after != after))).all())


def _equal(first: object, again: object) -> bool:
    """Return whether two results of a term are equal up to rounding; True for objects of other types."""
    if isinstance(first, Matches) and isinstance(again, Matches):
        return all(_equal(getattr(first, field.name), getattr(again, field.name)) for field in fields(first))
    if not (isinstance(first, Tensor) and isinstance(again, Tensor)):
        return True
    return first.shape == again.shape and torch.allclose(first.double(), again.double(), 1e-4, 1e-6, equal_nan=True)
