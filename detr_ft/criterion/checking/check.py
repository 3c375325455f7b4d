"""Checks of terms, a user's own included, on small extreme batches, in seconds on a CPU.

Each check returns a list of problems: `assert check_loss(MyLoss()) == []`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from detr_ft.criterion.base import Cost, Loss
from detr_ft.criterion.checking.cases import Case, cases, many_queries
from detr_ft.criterion.checking.probes import (
    ZeroLoss,
    probe_cost,
    probe_criterion,
    probe_precision,
    probe_size,
    probe_training,
    probe_weights,
)
from detr_ft.criterion.fault_finder import describe_exception
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.criterion.matchers import HungarianMatcher, MatcherSchedule, checked_costs, costs_of
from detr_ft.criterion.set_criterion import SetCriterion

logger = logging.getLogger("detr_ft.criterion")

_DEFAULT_CLASSES = 4


def check_cost(cost: Cost) -> list[str]:
    """Check a cost: shape `[L, P, Q]`, fp32, finite, each target with the queries of its own image.

    The cost of a target must not depend on the order of targets, nor on other images.

    >>> from detr_ft.criterion import GIoUCost
    >>> check_cost(GIoUCost())
    []
    """
    try:
        checked_costs([cost])
    except (TypeError, ValueError) as error:
        return [str(error)]
    with _without_warnings():
        return _grouped(_cost_problems(cost))


def check_loss(loss: Loss) -> list[str]:
    """Check a loss: shape `[L]`, finite value and gradient, and dependence on the softmax over K+1 alone.

    The loss is computed after the matching of DETR: with and without objects, with more objects than queries, with
    extreme logits and boxes without area, in half precision, and with the targets in another order. A loss of weight
    0 needs no gradient. Use `check_criterion` to check that all losses together train correct scores.

    >>> from detr_ft.criterion import CrossEntropyLoss
    >>> check_loss(CrossEntropyLoss())
    []
    """
    try:
        criterion = SetCriterion(HungarianMatcher(), [loss] if loss.weight else [loss, ZeroLoss()])
    except (AttributeError, TypeError, ValueError) as error:  # an object that is no loss
        return [str(error)]
    with _without_warnings():
        return _grouped(_problems(criterion))


def check_criterion(criterion: SetCriterion) -> list[str]:
    """Check every cost and loss as `check_cost` and `check_loss` do, with every matcher of a schedule.

    Then train free logits: the softmax over K+1 must predict the class of each matched query, and no-object elsewhere.
    An empty list means that no problem was detected.
    """
    schedule = criterion.matcher
    starts = schedule.starts if isinstance(schedule, MatcherSchedule) else [0]
    with _without_warnings():
        problems = [
            *(problem for cost in costs_of(criterion.matcher) for problem in _cost_problems(cost)),
            *(problem for start in starts for problem in _problems(criterion.at(start))),
        ]
        if not problems:
            case = cases(_classes_of(criterion))[0]
            problems = [
                (case, text)
                for start in starts
                for text in _caught(probe_training(criterion.at(start), case), criterion)
            ]
    return _grouped(problems)


def _cost_problems(cost: Cost) -> Iterator[tuple[Case, str]]:
    for case in cases(_DEFAULT_CLASSES):
        yield from (
            (case, problem)
            for problem in _caught(probe_cost(cost, case), SetCriterion(HungarianMatcher([cost]), [ZeroLoss()]))
        )


def _problems(criterion: SetCriterion) -> Iterator[tuple[Case, str]]:
    for case in cases(_classes_of(criterion)):
        for probe in (probe_criterion, probe_precision, probe_weights):
            problems = list(_caught(probe(criterion, case), criterion))
            yield from ((case, problem) for problem in problems)
            if problems:  # the remaining probes would report the same problem again
                break
    large = many_queries(_classes_of(criterion))
    yield from ((large, problem) for problem in _caught(probe_size(criterion, large), criterion))


def _grouped(problems: Iterable[tuple[Case, str]]) -> list[str]:
    """Each problem once, with the name of the first batch that has it."""
    cases_of: dict[str, list[Case]] = {}
    for case, problem in problems:
        cases_of.setdefault(problem, []).append(case)
    return [
        f"on {batches[0]}{f' and {len(batches) - 1} more batches' if len(batches) > 1 else ''}: {problem}"
        for problem, batches in cases_of.items()
    ]


def _caught(problems: Iterator[str], criterion: SetCriterion) -> Iterator[str]:
    """The problems of a probe. An exception of a term is one, with the line that raised it."""
    try:
        yield from problems
    except CriterionError as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001 - any exception of a user's term is a problem to report
        yield describe_exception(error, criterion)


def _classes_of(criterion: SetCriterion) -> int:
    """The number of class weights of a criterion, or the default where it has none."""
    weights = [getattr(loss, "class_weights", None) for loss in criterion.losses]
    return next((len(values) for values in weights if values), _DEFAULT_CLASSES)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress the warning of more objects than queries, which one of the batches has on purpose."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
