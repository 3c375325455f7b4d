"""Try terms, one's own included, on small nasty batches: seconds on a CPU. Each answer is a list of what is wrong, in words.

assert check_loss(MyLoss()) == []
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from detr_ft.criterion.base import Cost, Loss
from detr_ft.criterion.checking.cases import Case, cases, many_queries
from detr_ft.criterion.checking.probes import (
    Nothing,
    try_cost,
    try_criterion,
    try_precision,
    try_size,
    try_training,
    try_weights,
)
from detr_ft.criterion.class_losses import CrossEntropyLoss, FocalLoss
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.criterion.matchers import CostMatcher, HungarianMatcher, LayerMatcher, MatcherSchedule, checked_costs
from detr_ft.criterion.set_criterion import SetCriterion

logger = logging.getLogger("detr_ft.criterion")

_CLASSES = 4


def check_cost(cost: Cost) -> list[str]:
    """What is wrong with a cost: shape `[L, P, Q]`, fp32, finite, of the target's own image, targets in any order.

    >>> from detr_ft.criterion import GIoUCost
    >>> check_cost(GIoUCost())
    []
    """
    try:
        checked_costs([cost])
    except (TypeError, ValueError) as error:
        return [str(error)]
    with _quiet():
        return _grouped(_cost_problems(cost))


def check_loss(loss: Loss) -> list[str]:
    """What is wrong with a loss: its shape `[L]`, value and gradient, and whether it bears on a softmax over K+1.

    It is scored after DETR's own matching, with and without objects, with more objects than queries, with extreme
    logits and boxes without area, in half precision, and with the targets in another order. A loss of weight 0 is tried
    without a gradient. Whether scores end up right is a matter of all losses together: see `check_criterion`.

    >>> check_loss(CrossEntropyLoss())
    []
    """
    try:
        criterion = SetCriterion(HungarianMatcher(), [loss] if loss.weight else [loss, Nothing()])
    except (AttributeError, TypeError, ValueError) as error:  # no loss, or one that no criterion takes
        return [str(error)]
    with _quiet():
        return _grouped(_problems(criterion))


def check_criterion(criterion: SetCriterion) -> list[str]:
    """What is wrong with a criterion, in words; an empty list is a pass.

    Every cost and loss is tried as by `check_cost` and `check_loss`, with every matcher of a schedule. Then free scores
    are trained by it: their softmax over K+1 must come to say each matched query's class, and no-object elsewhere.
    """
    schedule = criterion.matcher
    turns = schedule.starts if isinstance(schedule, MatcherSchedule) else [0]
    with _quiet():
        found = [
            *(problem for cost in _costs(criterion.matcher) for problem in _cost_problems(cost)),
            *(problem for start in turns for problem in _problems(criterion.at(start))),
        ]
        if not found:
            case = cases(_classes_of(criterion))[0]
            found = [(case, problem) for start in turns for problem in _caught(try_training(criterion.at(start), case))]
    return _grouped(found)


def _cost_problems(cost: Cost) -> Iterator[tuple[Case, str]]:
    for case in cases(_CLASSES):
        yield from ((case, problem) for problem in _caught(try_cost(cost, case)))


def _problems(criterion: SetCriterion) -> Iterator[tuple[Case, str]]:
    for case in cases(_classes_of(criterion)):
        for probe in (try_criterion, try_precision, try_weights):
            found = list(_caught(probe(criterion, case)))
            yield from ((case, problem) for problem in found)
            if found:  # what follows would tell of the same fault again
                break
    large = many_queries(_classes_of(criterion))
    yield from ((large, problem) for problem in _caught(try_size(criterion, large)))


def _costs(matcher: object) -> list[Cost]:
    """The costs of a matcher, and of those within it, each once."""
    if isinstance(matcher, CostMatcher):
        return list(matcher.costs)
    inner: list[object] = []
    if isinstance(matcher, LayerMatcher):
        inner = [matcher.last, matcher.auxiliary]
    if isinstance(matcher, MatcherSchedule):
        inner = list(matcher.matchers)
    found: list[Cost] = []
    for one in inner:
        found += [cost for cost in _costs(one) if not any(cost is other or cost == other for other in found)]
    return found


def _grouped(found: Iterable[tuple[Case, str]]) -> list[str]:
    """Each problem once, with the first of the batches that show it."""
    by_problem: dict[str, list[Case]] = {}
    for case, problem in found:
        by_problem.setdefault(problem, []).append(case)
    return [
        f"on {shown[0]}{f' and {len(shown) - 1} more batches' if len(shown) > 1 else ''}: {problem}"
        for problem, shown in by_problem.items()
    ]


def _caught(trial: Iterator[str]) -> Iterator[str]:
    """The problems that a trial finds; whatever a term raises is one, told with the line that it was raised from."""
    try:
        yield from trial
    except CriterionError as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001 - somebody else's code runs here, and its faults are what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        yield f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


def _classes_of(criterion: SetCriterion) -> int:
    """The number of classes that a criterion is for: as many as it has weights of classes, or any."""
    weights = [
        loss.class_weights
        for loss in criterion.losses
        if isinstance(loss, (CrossEntropyLoss, FocalLoss)) and loss.class_weights
    ]
    return len(weights[0]) if weights else _CLASSES


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the warning about more objects than queries, which one of the batches has on purpose."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
