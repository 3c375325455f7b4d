from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.brute_force import BruteForceMatcher
from support.random_batches import random_batch

from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    CardinalityError,
    ClassCost,
    CriterionError,
    CrossEntropyLoss,
    GIoULoss,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    OneToManyMatcher,
    SetCriterion,
    check_criterion,
    check_loss,
    detr_criterion,
)
from detr_ft.criterion.checking.cases import cases
from detr_ft.criterion.checking.probes import probe_matches
from detr_ft.structures import Matches, Predictions, Targets


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 6), min_size=2, max_size=4).map(tuple))
def test_does_not_depend_on_the_order_of_targets_or_images(seed: int, counts: tuple[int, ...]) -> None:
    predictions, _, labels = random_batch(seed, counts)
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed))
    turned = Predictions(predictions.logits[:, order], predictions.boxes[:, order])
    mixed = [{key: value.flip(0) for key, value in labels[index].items()} for index in order]
    device = predictions.device
    first, _ = detr_criterion()(predictions, Targets.from_labels(labels, device))
    second, _ = detr_criterion()(turned, Targets.from_labels(mixed, device))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_precisions_give_a_finite_fp32_loss(dtype: torch.dtype) -> None:
    predictions, targets, _ = random_batch(0, (3, 0, 2))
    low = Predictions(predictions.logits.to(dtype), predictions.boxes.to(dtype))
    loss, _ = detr_criterion()(low, targets)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    reference, _ = detr_criterion()(predictions, targets)
    torch.testing.assert_close(loss, reference, rtol=0.05, atol=0.05)


def test_a_batch_without_objects_trains_no_object_alone() -> None:
    predictions, targets, _ = random_batch(0, (0, 0))
    loss, values = detr_criterion()(predictions, targets)
    assert values["loss_bbox"] == 0
    assert values["loss_giou"] == 0
    logits, boxes = torch.autograd.grad(loss, (predictions.logits, predictions.boxes))
    assert logits.abs().sum() > 0
    assert boxes.abs().sum() == 0


def test_num_boxes_divides_the_box_losses_alone() -> None:
    predictions, targets, labels = random_batch(0, (3, 1))
    _, whole = detr_criterion()(predictions, targets)
    _, tenth = detr_criterion()(predictions, Targets.from_labels(labels, predictions.device, num_boxes=40.0))
    torch.testing.assert_close(whole["loss_bbox"], 10 * tenth["loss_bbox"])
    torch.testing.assert_close(whole["loss_giou"], 10 * tenth["loss_giou"])
    torch.testing.assert_close(whole["loss_ce"], tenth["loss_ce"])


def test_weights_scale_the_sum_and_not_the_log() -> None:
    predictions, targets, _ = random_batch(0, (3, 1))
    single = SetCriterion(HungarianMatcher(), [BoxL1Loss(weight=1), GIoULoss(weight=0), CardinalityError()])
    double = SetCriterion(HungarianMatcher(), [BoxL1Loss(weight=2), GIoULoss(weight=0), CardinalityError()])
    (loss, values), (doubled, same) = single(predictions, targets), double(predictions, targets)
    torch.testing.assert_close(2 * loss, doubled)
    assert values.keys() == same.keys()
    assert values["loss_giou"] > 0
    torch.testing.assert_close(values["loss_bbox"] + values["loss_bbox_0"] + values["loss_bbox_1"], loss)


def test_terms_are_logged_by_the_names_of_rows() -> None:
    predictions, targets, _ = random_batch(0, (3, 1))
    criterion = SetCriterion(HungarianMatcher(), [BoxL1Loss()])
    _, plain = criterion(predictions, targets)
    assert list(plain) == ["loss_bbox", "loss_bbox_0", "loss_bbox_1"]
    _, named = criterion(replace(predictions, rows=("enc", "", "dn_0")), targets)
    assert list(named) == ["loss_bbox", "loss_bbox_enc", "loss_bbox_dn_0"]
    assert [named["loss_bbox_enc"], named["loss_bbox"]] == [plain["loss_bbox_0"], plain["loss_bbox_1"]]


def test_repeated_names_and_zero_weights_raise() -> None:
    with pytest.raises(ValueError, match="loss_bbox"):
        SetCriterion(HungarianMatcher(), [BoxL1Loss(), BoxL1Loss()])
    with pytest.raises(ValueError, match="weight is not 0"):
        SetCriterion(HungarianMatcher(), [CardinalityError()])


class Scalar:
    """A loss with a single value instead of one for each layer."""

    name, weight = "loss_scalar", 1.0

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return predictions.logits.sum()


class Detached(Scalar):
    """A loss without a gradient."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return predictions.logits.detach().sum((1, 2, 3))


class Dividing(Scalar):
    """A loss that divides by the number of pairs, of which there may be none."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        pairs = matches.per_layer(torch.ones(len(matches.layer)))
        return matches.per_layer(matches.predicted(predictions.boxes).sum(-1)) / pairs


class Ordered(Scalar):
    """A loss that weights targets by their index."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return matches.per_layer(matches.predicted(predictions.boxes).sum(-1) * matches.target)


class Flat(Scalar):
    """A loss that is a constant of the predictions."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return 0 * predictions.boxes.sum((1, 2, 3))


class Mixed(Scalar):
    """A loss that puts the sum over all layers into each."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return matches.predicted(predictions.boxes).sum() / matches.num_boxes


class Misspelt(Scalar):
    """A loss with a typo."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return matches.per_layer(predicted)  # type: ignore[name-defined] # noqa: F821


class OwnMean(Scalar):
    """A loss that is a mean over the pairs of the batch."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        pairs = matches.per_layer(torch.ones(len(matches.layer)))
        return matches.per_layer(matches.predicted(predictions.boxes).sum(-1)) / pairs.clamp(min=1)


class Steep(Scalar):
    """A loss whose gradient grows without limit where a box is right."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        apart = (matches.predicted(predictions.boxes) - matches.target_values(targets.boxes)).square().sum(-1)
        return matches.per_layer(apart.sqrt())


class HalfHearted(Scalar):
    """A loss that is computed in the predictions' own precision."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return matches.per_layer(matches.predicted(predictions.boxes).sum(-1)) / matches.num_boxes.to(
            predictions.boxes.dtype
        )


class Overflowing(Scalar):
    """A loss whose squares are beyond half precision."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        far = (300 * matches.predicted(predictions.boxes)).square().sum(-1)
        return matches.per_layer(far.float()) / matches.num_boxes


@dataclass(frozen=True)
class Weighing:
    """A loss that multiplies by its weight, as the criterion does again."""

    weight: float = 2.0
    name: str = "loss_weighing"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return self.weight * matches.per_layer(matches.predicted(predictions.boxes).sum(-1)) / matches.num_boxes


class ClassesAlone(Scalar):
    """A cross-entropy over matched queries only, so that no other query learns no-object."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        log_p = matches.predicted(predictions.logits).float().log_softmax(-1)
        of_class = log_p.gather(-1, matches.target_values(targets.labels)[:, None])[:, 0]
        return matches.per_layer(-of_class) / matches.num_boxes


def test_check_criterion_reports_queries_that_never_predict_no_object() -> None:
    (problem,) = check_criterion(SetCriterion(HungarianMatcher(), [ClassesAlone(), BoxL1Loss()]))
    assert "0 of 18 matched queries" in problem
    assert "45 of 45 others" in problem


def test_check_criterion_reports_a_missing_loss_of_classes() -> None:
    (problem,) = check_criterion(SetCriterion(HungarianMatcher(), [BoxL1Loss(), GIoULoss()]))
    assert "no loss trains the scores" in problem


def test_check_criterion_checks_the_costs_of_every_matcher() -> None:
    class Near(BoxL1Cost):
        """Costs that depend on the targets of other images."""

        def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
            return super().__call__(predictions, targets) - targets.boxes.mean()

    inner = LayerMatcher(HungarianMatcher(), OneToManyMatcher(2, [ClassCost(), Near()]))
    criterion = SetCriterion(MatcherSchedule([inner, HungarianMatcher()], [0, 2]), detr_criterion().losses)
    problems = check_criterion(criterion)
    assert any("Near: " in problem and "targets of other images" in problem for problem in problems)


def test_check_criterion_reports_a_matcher_that_fails_for_many_queries() -> None:
    problems = check_criterion(SetCriterion(BruteForceMatcher(), detr_criterion().losses))
    assert any("on 100 queries" in problem and "limited to 7" in problem for problem in problems)


class Undivided(Scalar):
    """A sum over pairs without a divisor, which grows with the batch and the number of processes."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return matches.per_layer(matches.predicted(predictions.boxes).float().sum(-1))


class NotATensor(Scalar):
    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Any:
        return None


class OverTargets(Scalar):
    """A loss that divides by the width of a target."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        widths = matches.predicted(predictions.boxes).float()[:, 2] / matches.target_values(targets.boxes)[:, 2]
        return matches.per_layer(widths) / matches.num_boxes


@dataclass(frozen=True)
class Invalid:
    """The matching of DETR with one field invalid."""

    what: str

    def __call__(self, predictions: Predictions, targets: Targets) -> Any:
        valid = HungarianMatcher()(predictions, targets)
        changed: dict[str, Any] = {
            "type": [],
            "query": replace(valid, query=valid.query + 100),
            "negative": replace(valid, layer=valid.layer - 1),
            "image": replace(valid, image=valid.image * 0),
            "twice": replace(valid, query=valid.query * 0),
            "num_boxes": replace(valid, num_boxes=valid.num_boxes[:1]),
        }
        return changed[self.what]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("type", "got list"),
        ("query", "Matches.query must be in 0..6"),
        ("negative", "Matches.layer must be in 0..2, got -1"),
        ("image", "a query of one image with a target of another"),
        ("twice", "one query to two targets"),
        ("num_boxes", "Matches.num_boxes must have one value"),
    ],
)
def test_invalid_pairs_of_a_matcher_are_reported(what: str, words: str) -> None:
    case = cases(4)[0]
    problems = list(probe_matches(Invalid(what)(case.predictions, case.targets), case))
    assert words in problems[0]


def test_different_numbers_of_images_raise() -> None:
    predictions, _, _ = random_batch(0, (1, 2))
    with pytest.raises(CriterionError, match=r"targets: .*2, got 1"):
        detr_criterion()(predictions, random_batch(0, (1,))[1])


class Late(Scalar):
    """A loss that is NaN where there are many queries."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        values = matches.per_layer(matches.predicted(predictions.boxes).sum(-1)) / matches.num_boxes
        return values * (float("nan") if predictions.num_queries > 50 else 1)


@pytest.mark.parametrize("k", [1, 2, 3, 6, 10])
def test_check_criterion_passes_valid_criteria(k: int) -> None:
    assert check_criterion(detr_criterion()) == []
    auxiliary = LayerMatcher(HungarianMatcher(), OneToManyMatcher(k))
    assert check_criterion(SetCriterion(auxiliary, detr_criterion().losses)) == []


def test_check_criterion_reports_a_detached_loss_beside_valid_ones() -> None:
    problems = check_criterion(SetCriterion(HungarianMatcher(), [*detr_criterion().losses, Detached()]))
    assert any("loss_scalar: no gradient" in problem for problem in problems)


class Failing:
    """A matcher that raises."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        raise ZeroDivisionError


def test_check_criterion_checks_every_matcher_of_a_schedule() -> None:
    schedule = MatcherSchedule([Failing(), HungarianMatcher()], [0, 5])
    assert any(
        "ZeroDivisionError" in problem for problem in check_criterion(SetCriterion(schedule, detr_criterion().losses))
    )


@pytest.mark.parametrize(
    ("matcher", "losses", "words"),
    [
        (3, [BoxL1Loss()], "no matcher"),
        (BoxL1Cost(), [BoxL1Loss()], "no matcher"),
        (HungarianMatcher(), [BoxL1Cost()], "Give costs to the matcher"),
        (HungarianMatcher(), [3], "no loss"),
        (HungarianMatcher, [BoxL1Loss()], r"Write HungarianMatcher\(\)"),
        (HungarianMatcher(), [BoxL1Loss], r"Write BoxL1Loss\(\)"),
        (HungarianMatcher(), BoxL1Loss(), r"losses: must be a list"),
        (HungarianMatcher(), [BoxL1Loss(weight="abc")], "0 or above"),  # type: ignore[arg-type]
        (HungarianMatcher(), [BoxL1Loss(weight=-1)], "0 or above"),
        (HungarianMatcher(), [BoxL1Loss(weight=float("nan"))], "0 or above"),
    ],
)
def test_a_wrong_kind_of_term_raises(matcher: object, losses: list[object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        SetCriterion(matcher, losses)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "words"), [(3, "weight"), (BoxL1Cost(), "no loss"), (BoxL1Loss(weight=-1), "0 or above")]
)
def test_check_loss_reports_an_object_that_is_no_loss(loss: Any, words: str) -> None:
    (problem,) = check_loss(loss)
    assert words in problem


def test_a_schedule_inside_a_layer_matcher_raises() -> None:
    schedule = MatcherSchedule([HungarianMatcher()], [0])
    with pytest.raises(ValueError, match="Give the schedule a LayerMatcher"):
        LayerMatcher(schedule, HungarianMatcher())


@pytest.mark.parametrize("cost", [BoxL1Loss(), 3, BoxL1Cost(weight=float("inf"))])
def test_an_object_that_is_no_cost_raises(cost: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"no cost|finite"):
        HungarianMatcher([cost])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (Scalar(), "one value for each layer"),
        (Detached(), "no gradient"),
        (Dividing(), "a batch without objects"),
        (Ordered(), "order of the targets"),
        (Flat(), "0 everywhere"),
        (OwnMean(), "split of images over processes"),
        (Mixed(), "depends on other layers"),
        (Misspelt(), "NameError: name 'predicted' is not defined (test_set_criterion.py, line "),
        (Steep(), "exact boxes"),
        (HalfHearted(), "the value is torch.bfloat16"),
        (Overflowing(), "NaN or infinite where predictions are torch.float16"),
        (Weighing(), "depends on its weight"),
        (Late(), "on 100 queries"),
        (Undivided(), "depends on the number of processes"),
        (NotATensor(), "got NoneType"),
        (OverTargets(), "objects without area"),
    ],
)
def test_check_criterion_reports_the_problem_of_a_loss(loss: Scalar, words: str) -> None:
    problems = check_criterion(SetCriterion(HungarianMatcher(), [loss]))
    assert any(words in problem for problem in problems), problems


def test_a_shape_that_is_not_per_layer_is_named() -> None:
    predictions, targets, _ = random_batch(0, (1,))
    with pytest.raises(CriterionError, match="Scalar"):
        SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), Scalar()])(predictions, targets)


def test_str_of_the_criterion_of_detr() -> None:
    assert str(detr_criterion()) == (
        "Matched by HungarianMatcher on 1 x ClassCost + 5 x BoxL1Cost + 2 x GIoUCost.\n"
        "Scored by 1 x CrossEntropyLoss (eos_coef 0.1) + 5 x BoxL1Loss + 2 x GIoULoss.\n"
        "Only logged: CardinalityError."
    )


def test_str_of_schedules_layers_and_parameters() -> None:
    costs = [BoxL1Cost(2.5)]
    layers = LayerMatcher(HungarianMatcher(costs), OneToManyMatcher(4, costs))
    schedule = MatcherSchedule([layers, GreedyMatcher(costs)], [0, 7])
    losses = [BoxL1Loss(1), CrossEntropyLoss(0, label_smoothing=0.1)]
    assert str(SetCriterion(schedule, losses)) == (
        "Matched by HungarianMatcher on 2.5 x BoxL1Cost in the last layer and OneToManyMatcher (k 4) on 2.5 x BoxL1Cost "
        "in the others up to epoch 7, then by GreedyMatcher on 2.5 x BoxL1Cost.\n"
        "Scored by 1 x BoxL1Loss.\n"
        "Only logged: CrossEntropyLoss (eos_coef 0.1, label_smoothing 0.1)."
    )


@dataclass(frozen=True)
class Nearest:
    """A matcher without costs."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return HungarianMatcher()(predictions, targets)


class Unparametrised:
    """A loss that is no dataclass."""

    name, weight = "loss_plain", 2.0

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return predictions.boxes.sum((1, 2, 3))


def test_str_of_user_terms() -> None:
    assert str(SetCriterion(Nearest(), [Unparametrised()])) == "Matched by Nearest().\nScored by 2 x Unparametrised."


def test_arguments_of_other_types_or_devices_are_reported() -> None:
    predictions, targets, labels = random_batch(0, (2, 1))
    criterion: Any = detr_criterion()
    for arguments, words in (
        ((predictions, labels), r"targets: must be .*Targets, got list. Convert labels with Targets.from_labels"),
        ((predictions.logits, targets), r"predictions: must be .*Predictions, got Tensor"),
        ((predictions, targets.of_image(0)), "as many images as the predictions, 2, got 1"),
        ((predictions, targets.to(torch.device("meta"))), "targets: are on meta, the predictions on cpu"),
    ):
        with pytest.raises(CriterionError, match=words):
            criterion(*arguments)
