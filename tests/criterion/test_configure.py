from __future__ import annotations

from pathlib import Path

import pytest

from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    ClassCost,
    CrossEntropyLoss,
    HungarianMatcher,
    LayerMatcher,
    OneToManyMatcher,
    SetCriterion,
    detr_criterion,
)
from detr_ft.criterion.configure import ConfigureError, code_files, configure, describe

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


@pytest.mark.parametrize(
    "criterion",
    [
        detr_criterion(),
        SetCriterion(
            LayerMatcher(HungarianMatcher([ClassCost(2), BoxL1Cost(0.5)]), OneToManyMatcher(k=4)),
            [CrossEntropyLoss(eos_coef=0.3), BoxL1Loss(weight=3)],
        ),
    ],
)
def test_there_and_back_is_the_same(criterion: SetCriterion) -> None:
    assert configure(describe(criterion)) == criterion


def test_a_term_of_ones_own_lies_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "area.py").write_text(TERM)
    description = describe(detr_criterion())
    description["losses"].append({"use": "area.py:Area", "weight": 3, "scale": 0.5})
    criterion = configure(description, tmp_path)
    assert repr(criterion.losses[-1]) == "Area(weight=3, scale=0.5)"
    assert describe(criterion) == description
    assert configure(describe(criterion), tmp_path) == criterion
    assert code_files(description, tmp_path) == [tmp_path / "area.py"]


def test_every_mistake_is_told_with_its_place(tmp_path: Path) -> None:
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
    told = {".".join(map(str, place)): message for place, message in caught.value.problems}
    assert "did you mean ClassCost?" in told["matcher.costs.0.use"]
    assert "did you mean weight?" in told["matcher.costs.1.wieght"]
    assert "needs `use:`" in told["losses.0"]
    assert "no such file" in told["losses.1.use"]
    assert "it defines Area" in told["losses.2.use"]
    assert "say which class of it, as in area.py:MyLoss" in told["losses.3.use"]
    assert "eos" in told


def test_a_value_that_a_term_refuses_is_told() -> None:
    with pytest.raises(ConfigureError, match="k of at least 1"):
        configure({"matcher": {"use": "OneToManyMatcher", "k": 0}, "losses": [{"use": "BoxL1Loss"}]})
    with pytest.raises(ConfigureError, match="losses: needs a list"):
        configure({"matcher": {"use": "HungarianMatcher"}, "losses": []})


def test_a_file_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("SCALE = 1 / 0")
    description = describe(detr_criterion()) | {"matcher": {"use": "broken.py:Matcher"}}
    for _ in range(2):  # a module that failed isn't taken for one that is loaded
        with pytest.raises(ConfigureError, match=r"broken\.py: ZeroDivisionError"):
            configure(description, tmp_path)


def test_two_losses_of_a_name_are_refused() -> None:
    description = describe(detr_criterion())
    description["losses"].append({"use": "BoxL1Loss"})
    with pytest.raises(ConfigureError, match="two losses share the name loss_bbox"):
        configure(description)


def test_a_term_of_an_installed_package_goes_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "areas.py").write_text(TERM)
    monkeypatch.syspath_prepend(tmp_path)
    description = describe(detr_criterion())
    description["losses"].append({"use": "areas:Area", "weight": 3, "scale": 0.5})
    assert describe(configure(description)) == description
