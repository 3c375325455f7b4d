from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml

import detr_ft.criterion
from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    CardinalityError,
    CIoUCost,
    CIoULoss,
    ClassCost,
    CriterionError,
    CrossEntropyLoss,
    DIoUCost,
    DIoULoss,
    GIoUCost,
    GIoULoss,
    GreedyMatcher,
    HungarianMatcher,
    IoUAwareLoss,
    LayerMatcher,
    LogClassCost,
    Matcher,
    MatcherSchedule,
    OneToManyMatcher,
    SetCriterion,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftmaxFocalCost,
    SoftmaxFocalLoss,
    SoftmaxMatchabilityLoss,
    SoftmaxQualityFocalLoss,
    SoftmaxVarifocalLoss,
    check_activation,
    detr_criterion,
)
from detr_ft.criterion.serialization import FORMS, configure, describe, explicit_names
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.utils.components import ConfigureError, build_object, code_files


def test_names_of_earlier_recipes_are_the_softmax_forms() -> None:
    for name, forms in FORMS.items():
        assert getattr(detr_ft.criterion, name) is forms["softmax"]
        assert name in detr_ft.criterion.__all__


TERM = """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Area:
    weight: float = 1.0
    scale: float = 2.0
    name: ClassVar[str] = "loss_area"

    def __call__(self, predictions, targets, matches):
        sides = matches.predicted(predictions.boxes)[:, 2:]
        return self.scale * matches.per_layer(sides.prod(-1)) / matches.num_boxes
"""


SHAPES = """
from dataclasses import dataclass, field

@dataclass(frozen=True)
class Ranges:
    weight: float = 1.0
    limits: tuple[float, ...] = (0.5, 1.0)
    names: list[str] = field(default_factory=list)
    computed: float = field(init=False, default=0.0)
    name: str = "loss_ranges"

    def __call__(self, predictions, targets, matches):
        return predictions.boxes.sum((1, 2, 3))

class Plain:
    weight, name = 1.0, "loss_plain"

    def __call__(self, predictions, targets, matches):
        return predictions.boxes.sum((1, 2, 3))
"""

LOSSES = [
    BoxL1Loss(2), SmoothL1Loss(beta=0.1), GIoULoss(), DIoULoss(), CIoULoss(0.5), CardinalityError(),
    CrossEntropyLoss(eos_coef=0.3, class_weights=(1, 2.5), label_smoothing=0.1), SoftmaxFocalLoss(gamma=1.5),
    SoftmaxQualityFocalLoss(), SoftmaxVarifocalLoss(alpha=0.5), SoftmaxMatchabilityLoss(),
]  # fmt: skip
COSTS = [ClassCost(2), LogClassCost(), SoftmaxFocalCost(gamma=1), BoxL1Cost(0.5), GIoUCost(), DIoUCost(), CIoUCost()]
MATCHERS = [
    HungarianMatcher(COSTS),
    GreedyMatcher(),
    LayerMatcher(HungarianMatcher([ClassCost(2), BoxL1Cost(0.5)]), OneToManyMatcher(k=4)),
    MatcherSchedule([LayerMatcher(HungarianMatcher(), OneToManyMatcher(2)), HungarianMatcher(COSTS)], [0, 7]),
]


@pytest.mark.parametrize("matcher", MATCHERS, ids=lambda matcher: type(matcher).__name__)
def test_a_described_criterion_is_configured_equally(matcher: Matcher) -> None:
    """By YAML, as in a recipe, and by JSON, as in a checkpoint's config."""
    criterion = SetCriterion(matcher, LOSSES)
    description = describe(criterion)
    assert configure(yaml.safe_load(yaml.safe_dump(description))) == criterion
    assert configure(json.loads(json.dumps(description))) == criterion


PLAIN = ["FocalLoss", "QualityFocalLoss", "VarifocalLoss", "MatchabilityLoss"]


def test_a_plain_name_is_the_form_for_softmax_and_is_recorded_explicitly() -> None:
    """As in recipes and configs that were written when these were the only names."""
    description = {
        "matcher": {"use": "HungarianMatcher", "costs": [{"use": "FocalCost", "weight": 2.0}]},
        "losses": [{"use": name} for name in PLAIN],
    }
    criterion = configure(description)
    assert [type(loss).__name__ for loss in criterion.losses] == [f"Softmax{name}" for name in PLAIN]
    recorded = describe(criterion)
    assert [loss["use"] for loss in recorded["losses"]] == [f"Softmax{name}" for name in PLAIN]
    assert [cost["use"] for cost in recorded["matcher"]["costs"]] == ["SoftmaxFocalCost"]
    assert configure(recorded) == criterion
    assert explicit_names(json.loads(json.dumps({"recipe": {"criterion": description}}))) == {
        "recipe": {
            "criterion": {
                "matcher": {"use": "HungarianMatcher", "costs": [{"use": "SoftmaxFocalCost", "weight": 2.0}]},
                "losses": [{"use": f"Softmax{name}"} for name in PLAIN],
            }
        }
    }


@dataclass(frozen=True)
class Unstated:
    """A loss without `activations`."""

    weight: float = 1.0
    name: ClassVar[str] = "loss_unstated"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return predictions.logits.sum((1, 2, 3))


def test_a_plain_name_is_the_form_for_the_activation_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    forms: dict[str, type] = {"softmax": SoftmaxFocalLoss, "sigmoid": SigmoidFocalLoss}
    monkeypatch.setitem(FORMS, "VarifocalLoss", {"softmax": SoftmaxVarifocalLoss})
    description = {"matcher": {"use": "HungarianMatcher"}, "losses": [{"use": "FocalLoss"}]}
    assert configure(description, activation="sigmoid").losses == (SigmoidFocalLoss(),)
    assert configure(description).losses == (SoftmaxFocalLoss(),)
    with pytest.raises(ConfigureError, match="no 'VarifocalLoss'"):
        configure(description | {"losses": [{"use": "VarifocalLoss"}]}, activation="sigmoid")
    check_activation(configure(description, activation="sigmoid"), "sigmoid")
    for activation, (own, other) in {"sigmoid": ("Softmax", "Sigmoid"), "softmax": ("Sigmoid", "Softmax")}.items():
        losses = [forms["softmax" if own == "Softmax" else "sigmoid"]()]
        criterion = SetCriterion(HungarianMatcher(), losses)
        with pytest.raises(CriterionError, match=f"{own}FocalLoss .*Use {other}FocalLoss"):
            check_activation(criterion, activation)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (detr_criterion(), "CrossEntropyLoss is for softmax .*Use SigmoidFocalLoss"),
        (
            SetCriterion(HungarianMatcher(), [SoftmaxMatchabilityLoss()]),
            "SoftmaxMatchabilityLoss is for softmax .*Use Sigmoid",
        ),
        (
            SetCriterion(HungarianMatcher([SoftmaxFocalCost()]), [BoxL1Loss()]),
            "SoftmaxFocalCost .*Use SigmoidFocalCost",
        ),
        (
            SetCriterion(
                MatcherSchedule([LayerMatcher(OneToManyMatcher(2, [SoftmaxFocalCost()]), HungarianMatcher())], [0]),
                [BoxL1Loss()],
            ),
            "SoftmaxFocalCost .*Use SigmoidFocalCost",
        ),
    ],
)
def test_a_term_for_another_activation_is_named(criterion: SetCriterion, words: str) -> None:
    check_activation(criterion, "softmax")
    with pytest.raises(CriterionError, match=words):
        check_activation(criterion, "sigmoid")


@dataclass(frozen=True)
class OnlySigmoid:
    """A loss of a user without a counterpart."""

    weight: float = 1.0
    name: ClassVar[str] = "loss_only"
    activations: ClassVar[frozenset[str]] = frozenset({"sigmoid"})

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return predictions.logits.sum((1, 2, 3))


@pytest.mark.parametrize(("loss", "words"), [(IoUAwareLoss(), "Use SoftmaxMatch"), (OnlySigmoid(), "'softmax'")])
def test_a_sigmoid_term_names_its_counterpart(loss: Any, words: str) -> None:
    with pytest.raises(CriterionError, match=words):
        check_activation(SetCriterion(HungarianMatcher(), [loss]), "softmax")


def test_terms_for_any_activation_and_unknown_criteria_pass() -> None:
    costs = [ClassCost(), LogClassCost(), BoxL1Cost(), GIoUCost()]
    losses = [BoxL1Loss(), GIoULoss(), CardinalityError(), Unstated()]
    check_activation(SetCriterion(HungarianMatcher(costs), losses), "sigmoid")
    check_activation(lambda predictions, targets: None, "sigmoid")


def test_lists_tuples_and_computed_fields_are_restored(tmp_path: Path) -> None:
    (tmp_path / "terms").mkdir()
    (tmp_path / "terms/shapes.py").write_text(SHAPES)
    description = describe(detr_criterion())
    description["losses"].append({"use": "terms/shapes.py:Ranges", "limits": [0.1, 0.2], "names": ["a"]})
    criterion = configure(description, tmp_path)
    assert repr(criterion.losses[-1]) == (
        "Ranges(weight=1.0, limits=(0.1, 0.2), names=['a'], computed=0.0, name='loss_ranges')"
    )
    assert configure(json.loads(json.dumps(describe(criterion))), tmp_path) == criterion


def test_a_term_that_cannot_be_described_raises(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text(SHAPES)
    description = describe(detr_criterion())
    description["losses"].append({"use": "shapes.py:Plain"})
    with pytest.raises(ConfigureError, match=r"Plain is no dataclass.*@dataclass"):
        configure(description, tmp_path)
    with pytest.raises(TypeError, match="cannot be written"):
        describe(SetCriterion(lambda predictions, targets: None, [BoxL1Loss()]))  # type: ignore[arg-type, return-value]


def test_a_user_term_is_configured_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "area.py").write_text(TERM)
    description = describe(detr_criterion())
    description["losses"].append({"use": "area.py:Area", "weight": 3, "scale": 0.5})
    criterion = configure(description, tmp_path)
    assert repr(criterion.losses[-1]) == "Area(weight=3, scale=0.5)"
    assert describe(criterion) == description
    assert configure(describe(criterion), tmp_path) == criterion
    assert code_files(description, tmp_path) == [tmp_path / "area.py"]


def test_every_mistake_is_reported_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "area.py").write_text(TERM)
    with pytest.raises(ConfigureError) as caught:
        configure(
            {
                "matcher": {
                    "use": "HungarianMatcher",
                    "costs": [{"use": "ClasCost"}, {"use": "BoxL1Cost", "wieght": 2}],
                },
                "losses": [{"weight": 1}, {"use": "gone.py:Term"}, {"use": "area.py:Aera"}, {"use": "area.py"}],
                "eos": 1,
            },
            tmp_path,
        )
    messages = {".".join(map(str, path)): message for path, message in caught.value.problems}
    assert "did you mean ClassCost?" in messages["matcher.costs.0.use"]
    assert "did you mean weight?" in messages["matcher.costs.1.wieght"]
    assert "needs `use:`" in messages["losses.0"]
    assert "no such file" in messages["losses.1.use"]
    assert "It defines Area" in messages["losses.2.use"]
    assert "area.py:MyLoss" in messages["losses.3.use"]
    assert "eos" in messages


def test_an_invalid_parameter_is_reported() -> None:
    with pytest.raises(ConfigureError, match=r"matcher: .*k must be"):
        configure({"matcher": {"use": "OneToManyMatcher", "k": 0}, "losses": [{"use": "BoxL1Loss"}]})
    with pytest.raises(ConfigureError, match="losses: needs a list"):
        configure({"matcher": {"use": "HungarianMatcher"}, "losses": []})
    with pytest.raises(ConfigureError, match="losses: needs a list"):
        configure({"matcher": {"use": "HungarianMatcher"}, "losses": {"use": "BoxL1Loss"}})
    losses = [{"use": "BoxL1Loss", "weight": -1}, {"use": "HungarianMatcher"}, {"use": "GIoULoss", "weight": -2}]
    with pytest.raises(ConfigureError) as raised:
        configure({"matcher": {"use": "HungarianMatcher"}, "losses": losses})
    assert [place for place, _ in raised.value.problems] == [("losses", 0), ("losses", 2)]


def test_a_file_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("SCALE = 1 / 0")
    description = describe(detr_criterion()) | {"matcher": {"use": "broken.py:Matcher"}}
    for _ in range(2):  # a module that failed is not in sys.modules
        with pytest.raises(ConfigureError, match=r"broken\.py: ZeroDivisionError"):
            configure(description, tmp_path)


def test_two_losses_of_a_name_are_refused() -> None:
    description = describe(detr_criterion())
    description["losses"].append({"use": "BoxL1Loss"})
    with pytest.raises(ConfigureError, match=r"losses: .*name loss_bbox"):
        configure(description)


def test_a_term_of_an_installed_package_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "areas.py").write_text(TERM)
    monkeypatch.syspath_prepend(tmp_path)
    description = describe(detr_criterion())
    description["losses"].append({"use": "areas:Area", "weight": 3, "scale": 0.5})
    assert describe(configure(description, tmp_path)) == description
    with pytest.raises(ConfigureError, match=r"losses\.\d\.use: areas:Area is code"):
        configure(description)


@pytest.mark.parametrize(
    ("description", "path", "words"),
    [
        ({"use": "BoxL1Cos"}, ("use",), "did you mean BoxL1Cost?"),
        ({"use": "GIoUCost"}, ("use",), "there is no 'GIoUCost'"),
        ({"use": "BoxL1Cost", "wait": 1}, ("wait",), "no parameter 'wait'"),
        ([1], (), "needs `use:`"),
        ({"weight": 1}, (), "needs `use:`"),
    ],
)
def test_build_object_of_given_classes(description: object, path: tuple[str, ...], words: str) -> None:
    known = {"BoxL1Cost": BoxL1Cost}
    assert build_object({"use": "BoxL1Cost", "weight": 3}, known) == BoxL1Cost(weight=3)
    with pytest.raises(ConfigureError) as caught:
        build_object(description, known)
    assert [(own, words in message) for own, message in caught.value.problems] == [(path, True)]
