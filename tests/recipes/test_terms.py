"""Example recipes with terms of their own: they pass the checks and equal their formulas."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from detr_ft.criterion import check_criterion
from detr_ft.recipe.load import build_file
from detr_ft.structures import Matches, Predictions, Targets

RECIPES = Path(__file__).parents[2] / "recipes"
EXAMPLES = ["cones/nwd.yaml", "bccd/imbalance.yaml", "bccd/crowded.yaml", "chess/few.yaml"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_criteria_of_example_recipes_pass_the_check(name: str) -> None:
    criterion = build_file(RECIPES / name).criterion
    assert check_criterion(criterion) == []


def test_the_readme_contains_the_file() -> None:
    readme = (RECIPES.parent / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("```python\n# nwd.py\n")[2].partition("```")[0]
    assert (RECIPES / "cones/nwd.py").read_text(encoding="utf-8").endswith(shown)


def test_class_weights_equal_the_formula() -> None:
    criterion = build_file(RECIPES / "bccd/imbalance.yaml").criterion
    raw = [(1 - 0.999) / (1 - 0.999**count) for count in (361, 4155, 372)]
    expected = [3 * value / sum(raw) for value in raw]
    assert list(criterion.losses[0].class_weights) == pytest.approx(expected, abs=0.006)  # type: ignore[attr-defined]


def test_repulsion_equals_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(RECIPES / "bccd"), *sys.path])
    from repulsion import RepulsionLoss

    targets = Targets(
        torch.tensor([0, 0, 0]),
        torch.tensor([[0.2, 0.5, 0.2, 0.2], [0.4, 0.5, 0.2, 0.2], [0.4, 0.5, 0.2, 0.2]]),
        torch.tensor([0, 0, 1]),  # the last is in another image and repels no box
        (2, 1),
    )

    def at(width: float) -> float:
        boxes = torch.tensor([0.2, 0.5, width, 0.2]).expand(1, 2, 1, 4)
        matches = Matches(*(torch.tensor([value]) for value in (0, 0, 0, 0)), num_boxes=torch.tensor([1.0]))
        return RepulsionLoss(sigma=0.5)(Predictions(torch.zeros(1, 2, 1, 2), boxes), targets, matches).item()

    assert at(0.2) == pytest.approx(0, abs=1e-5)  # beside its neighbour
    assert at(0.3) == pytest.approx(-math.log(1 - 0.25), rel=1e-3)  # a quarter of the neighbour covered
    assert at(0.5) == pytest.approx(-math.log(0.5) + (0.75 - 0.5) / 0.5, rel=1e-3)
