"""Checks of terms, a user's own included, on small extreme batches, in seconds on a CPU.

Each check returns a list of problems: `assert check_loss(MyLoss()) == []`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from detr_ft.criterion.base import ANY_ACTIVATION, Cost, Loss
from detr_ft.criterion.checking.cases import Case, cases, many_queries
from detr_ft.criterion.checking.effects import probe_cost_effects, probe_effects, settings_restored
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
from detr_ft.structures import Activation
from detr_ft.utils.user_code import raise_if_interrupt

logger = logging.getLogger("detr_ft.criterion")

_DEFAULT_CLASSES = 4


def check_cost(cost: Cost) -> list[str]:
    """Check a cost: shape `[L, P, Q]`, fp32, finite, each target with the queries of its own image.

    The cost of a target must not depend on the order of targets, nor on other images. Its inputs stay as they are, and the
    same inputs give the same cost.

    >>> from detr_ft.criterion import GIoUCost
    >>> check_cost(GIoUCost())
    []
    """
    try:
        checked_costs([cost])
    except (TypeError, ValueError) as error:
        return [str(error)]
    with _isolated():
        return _grouped(_cost_problems(cost))


def check_loss(loss: Loss) -> list[str]:
    """Check a loss: shape `[L]`, finite value and gradient, and dependence on the scores alone.

    The loss is computed after the matching of DETR: with and without objects, with more objects than queries, with
    extreme logits and boxes without area, in half precision, and with the targets in another order. Its inputs stay as
    they are, and the same inputs give the same value. A loss of weight 0 needs no gradient. Use `check_criterion` to check
    that all losses together train correct scores.

    >>> from detr_ft.criterion import CrossEntropyLoss
    >>> check_loss(CrossEntropyLoss())
    []
    """
    try:
        criterion = SetCriterion(HungarianMatcher(), [loss] if loss.weight else [loss, ZeroLoss()])
    except (AttributeError, TypeError, ValueError) as error:  # an object that is no loss
        return [str(error)]
    with _isolated():
        return _grouped(_problems(criterion))


def check_criterion(criterion: SetCriterion) -> list[str]:
    """Check every cost and loss as `check_cost` and `check_loss` do, with every matcher of a schedule.

    Then train free logits: they must predict the class of each matched query, and no-object elsewhere. Terms that support
    softmax scores only, or sigmoid scores only, are checked with these; others with softmax scores.
    An empty list means that no problem was detected.
    """
    schedule = criterion.matcher
    starts = schedule.starts if isinstance(schedule, MatcherSchedule) else [0]
    with _isolated():
        problems = [
            *(problem for cost in costs_of(criterion.matcher) for problem in _cost_problems(cost)),
            *(problem for start in starts for problem in _problems(criterion.at(start))),
        ]
        if not problems:
            terms = [*costs_of(criterion.matcher), *criterion.losses]
            case = cases(_classes_of(criterion), _activation_of(terms))[0]
            problems = [
                (case, text)
                for start in starts
                for text in _caught(probe_training(criterion.at(start), case), criterion)
            ]
    return _grouped(problems)


def _cost_problems(cost: Cost) -> Iterator[tuple[Case, str]]:
    criterion = SetCriterion(HungarianMatcher([cost]), [ZeroLoss()])
    for case in cases(_DEFAULT_CLASSES, _activation_of([cost])):
        yield from (
            (case, problem)
            for problem in _first_problems([probe_cost_effects(cost, case), probe_cost(cost, case)], criterion)
        )


def _problems(criterion: SetCriterion) -> Iterator[tuple[Case, str]]:
    classes, activation = _classes_of(criterion), _activation_of([*costs_of(criterion.matcher), *criterion.losses])
    for case in cases(classes, activation):
        probes = [probe(criterion, case) for probe in (probe_effects, probe_criterion, probe_precision, probe_weights)]
        yield from ((case, problem) for problem in _first_problems(probes, criterion))
    large = many_queries(classes, activation)
    probes = [probe_effects(criterion, large), probe_size(criterion, large)]
    yield from ((large, problem) for problem in _first_problems(probes, criterion))


def _first_problems(probes: Iterable[Iterator[str]], criterion: SetCriterion) -> list[str]:
    """The problems of the first probe that has any; the others would report the same again."""
    return next(filter(None, (_caught(probe, criterion) for probe in probes)), [])


def _grouped(problems: Iterable[tuple[Case, str]]) -> list[str]:
    """Each problem once, with the name of the first batch that has it."""
    cases_of: dict[str, list[Case]] = {}
    for case, problem in problems:
        cases_of.setdefault(problem, []).append(case)
    return [
        f"on {batches[0]}{f' and {len(batches) - 1} more batches' if len(batches) > 1 else ''}: {problem}"
        for problem, batches in cases_of.items()
    ]


def _caught(problems: Iterator[str], criterion: SetCriterion) -> list[str]:
    """The problems of a probe. Any exception of a term is one, SystemExit too, with its line."""
    caught: list[str] = []
    try:
        caught.extend(problems)
    except CriterionError as error:
        caught.append(str(error))
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
        raise_if_interrupt(error)
        caught.append(describe_exception(error, criterion))
    return caught


def _activation_of(terms: Sequence[object]) -> Activation:
    """The activation of the models to check terms with: softmax, unless one of them does not support it."""
    supported = [getattr(term, "activations", ANY_ACTIVATION) for term in terms]
    return "softmax" if all("softmax" in activations for activations in supported) else "sigmoid"


def _classes_of(criterion: SetCriterion) -> int:
    """The number of class weights of a criterion, or the default where it has none."""
    weights = [getattr(loss, "class_weights", None) for loss in criterion.losses]
    return next((len(values) for values in weights if values), _DEFAULT_CLASSES)


@contextmanager
def _isolated() -> Iterator[None]:
    """Restore torch's settings, and suppress the warning of too few queries, which a batch has on purpose."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with settings_restored():
            yield
    finally:
        logger.setLevel(level)
