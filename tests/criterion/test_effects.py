"""Terms that change their inputs, keep state, change torch's settings, or raise what would end the process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.random_batches import random_batch
from torch import Tensor

from detr_ft.criterion import (
    BoxL1Loss,
    ClassCost,
    CriterionError,
    HungarianMatcher,
    SetCriterion,
    check_cost,
    check_criterion,
    check_loss,
    detr_criterion,
    explain,
    find_fault,
)
from detr_ft.criterion.checking.effects import copied, describe_changes, snapshot
from detr_ft.criterion.explain import regrets
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class Acting:
    """BoxL1Loss that first does something else."""

    act: Callable[[Predictions, Targets, Matches], object]
    weight: float = 1.0
    name: str = "loss_acting"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        self.act(predictions, targets, matches)
        return BoxL1Loss()(predictions, targets, matches)


@dataclass(frozen=True)
class ActingCost:
    """ClassCost that first does something else."""

    act: Callable[[Predictions, Targets], object]
    weight: float = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        self.act(predictions, targets)
        return ClassCost()(predictions, targets)


@dataclass(frozen=True)
class ActingMatcher:
    """A matcher that changes the targets after it has matched them."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        matches = HungarianMatcher()(predictions, targets)
        targets.boxes.mul_(0.5)
        return matches


def without_gradient(change: Callable[[Predictions], object]) -> Callable[..., object]:
    def act(predictions: Predictions, *others: object) -> None:
        with torch.no_grad():
            change(predictions)

    return act


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (lambda p, t, m: p.logits.mul_(2), "predictions.logits"),
        (without_gradient(lambda p: p.boxes.clamp_(0.3, 0.4)), "predictions.boxes"),
        (lambda p, t, m: p.boxes.data.add_(0.01), "predictions.boxes"),
        (lambda p, t, m: p.cxcywh.mul_(2), "predictions.cxcywh"),
        (lambda p, t, m: p.log_probabilities.zero_(), "predictions.log_probabilities"),
        (lambda p, t, m: t.boxes.__setitem__((..., 2), 0.1), "targets.boxes"),
        (lambda p, t, m: t.labels.zero_(), "targets.labels"),
        (lambda p, t, m: t.num_boxes.mul_(2), "targets.num_boxes"),
        (lambda p, t, m: t.step.labels.add_(1), "targets.step.labels"),
        (lambda p, t, m: m.query.fill_(0), "matches.query"),
        (lambda p, t, m: m.num_boxes.fill_(1.5), "matches.num_boxes"),
        (lambda p, t, m: object.__setattr__(t, "boxes", t.boxes * 2), "targets.boxes"),
    ],
)
def test_a_loss_that_changes_its_inputs_is_reported_with_the_field(act: Callable[..., object], field: str) -> None:
    problems = check_loss(Acting(act))
    assert problems
    assert all("Acting: changes " in problem and field in problem for problem in problems), problems


def test_a_cost_and_a_matcher_that_change_their_inputs_are_reported() -> None:
    cost = ActingCost(without_gradient(lambda predictions: predictions.logits.mul_(2)))
    for problems in (check_cost(cost), check_criterion(SetCriterion(HungarianMatcher([cost]), [BoxL1Loss()]))):
        assert problems
        assert all("ActingCost: changes predictions.logits in place" in problem for problem in problems)
    problems = check_criterion(SetCriterion(ActingMatcher(), [BoxL1Loss()]))
    assert problems
    assert all("ActingMatcher: changes targets.boxes in place" in problem for problem in problems)


def test_a_term_with_state_is_reported() -> None:
    calls = itertools.count()

    @dataclass(frozen=True)
    class Counting:
        weight: float = 1.0
        name: str = "loss_counting"

        def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
            return BoxL1Loss()(predictions, targets, matches) * (1 + 0.01 * next(calls))

    problems = check_loss(Counting())
    assert any("Counting: returns other values when it is called again" in problem for problem in problems)


@pytest.mark.parametrize(
    ("act", "get", "words"),
    [
        (lambda *_: torch.set_default_dtype(torch.float64), torch.get_default_dtype, "default dtype"),
        (lambda *_: torch.set_num_threads(3), torch.get_num_threads, "number of threads"),
        (lambda *_: torch.set_grad_enabled(False), torch.is_grad_enabled, "gradient mode"),
    ],
)
def test_changed_settings_of_torch_are_reported_and_restored(
    act: Callable[..., object], get: Callable[[], Any], words: str
) -> None:
    before = get()
    problems = check_loss(Acting(act))
    assert get() == before
    assert problems
    assert all(words in problem for problem in problems)


def test_drawing_random_numbers_without_using_them_is_no_problem() -> None:
    assert check_loss(Acting(lambda *_: torch.rand(3))) == []


class OwnError(BaseException):
    """No `Exception`, as a user may define one."""


def throw(error: BaseException) -> Callable[..., object]:
    def act(*_: object) -> None:
        raise error

    return act


ENDINGS = [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), OwnError("mine")]


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
def test_exceptions_that_end_a_process_are_problems_with_a_line(error: BaseException) -> None:
    loss, cost = Acting(throw(error)), ActingCost(throw(error))
    costly = SetCriterion(HungarianMatcher([cost]), [BoxL1Loss()])
    for problems in (check_loss(loss), check_cost(cost), check_criterion(costly)):
        assert problems
        assert all(f"{type(error).__name__}: " in problem for problem in problems)
        assert all("(test_effects.py, line " in problem for problem in problems)
    predictions, targets, _ = random_batch(0, (2, 1))
    found = find_fault(SetCriterion(HungarianMatcher(), [loss]), predictions, targets)
    assert found is not None
    assert found.startswith(f"Acting: {type(error).__name__}: ")
    for call in (explain, regrets):
        with pytest.raises(CriterionError, match=f"{type(error).__name__}: .*test_effects.py, line "):
            call(costly, predictions, targets)


def test_other_exceptions_of_a_term_pass_through_the_explanation() -> None:
    criterion = SetCriterion(HungarianMatcher([ActingCost(throw(ZeroDivisionError()))]), [BoxL1Loss()])
    predictions, targets, _ = random_batch(0, (2, 1))
    with pytest.raises(ZeroDivisionError):
        explain(criterion, predictions, targets)
    assert "ZeroDivisionError" in (find_fault(criterion, predictions, targets) or "")


def test_the_fault_finder_and_the_explanation_report_changed_inputs() -> None:
    halving = Acting(without_gradient(lambda predictions: predictions.boxes.mul_(0.5)))
    infinite = Acting(lambda p, t, m: p.boxes.data.mul_(torch.inf))
    predictions, targets, _ = random_batch(0, (2, 1))
    boxes = predictions.boxes.detach().clone()
    criterion = SetCriterion(HungarianMatcher(), [halving, BoxL1Loss()])
    found = find_fault(criterion, predictions, targets)
    assert found is not None
    assert found.startswith("Acting(")
    assert "changes predictions.boxes in place" in found
    spoiled = SetCriterion(HungarianMatcher(), [infinite, BoxL1Loss()])
    assert "the loss Acting(" in (find_fault(spoiled, predictions, targets) or "")
    assert torch.equal(predictions.boxes, boxes)
    with pytest.raises(CriterionError, match=r"changes predictions\.boxes in place"):
        explain(criterion, predictions, targets)
    assert find_fault(detr_criterion(), *random_batch(0, (2, 1))[:2]) is None


def test_further_outputs_and_replaced_tensors_are_compared() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    corners = predictions.boxes.detach().clone()
    further = replace(predictions, extras={"corners": corners})
    before = snapshot(further, targets)
    assert describe_changes(before, further, targets) is None
    copy = copied(further)
    assert copy.extras["corners"] is not corners
    assert torch.equal(copy.extras["corners"], corners)
    corners.zero_()
    object.__setattr__(targets, "boxes", targets.boxes[:1])
    changes = describe_changes(before, further, targets)
    assert changes is not None
    assert changes.startswith("changes predictions.extras['corners'], targets.boxes in place")


def test_a_matcher_called_alone_needs_targets_for_each_image() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    with pytest.raises(CriterionError, match="as many images as the predictions, 2, got 1"):
        HungarianMatcher()(predictions, targets.of_image(0))
