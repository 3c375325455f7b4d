"""A recipe that passes the quick check also passes the complete one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from detr_ft.errors import InputError
from detr_ft.recipe.load import load_recipe
from detr_ft.recipe.values import check_keys

NUMBERS = st.one_of(st.floats(-1, 200), st.integers(-1, 3), st.just(0), st.booleans())
TERMS = st.fixed_dictionaries(
    {
        "use": st.sampled_from(
            ["ClassCost", "GIoUCost", "CrossEntropyLoss", "BoxL1Loss", "GIoULoss", "CardinalityError", "GIoULos"]
        )
    },
    optional={"weight": NUMBERS, "eos_coef": NUMBERS, "wieght": NUMBERS},
)
MATCHERS = st.fixed_dictionaries(
    {"use": st.sampled_from(["HungarianMatcher", "Hungarian"]), "costs": st.lists(TERMS, max_size=3)}
)
CRITERIA = st.fixed_dictionaries({"matcher": MATCHERS, "losses": st.lists(TERMS, max_size=3)})


def recipe_with(criterion: object, **data: Any) -> str:
    """The text of a valid recipe with this criterion."""
    return yaml.safe_dump(
        {
            "model": {"checkpoint": "embedded:small"},
            "data": {"source": "generated:shapes", **data},
            "criterion": criterion,
            "train": {"output_dir": "run", "num_train_epochs": 1},
        }
    )


@given(CRITERIA)
def test_a_criterion_that_passes_the_quick_check_is_valid(criterion: dict[str, Any]) -> None:
    path = Path("recipe.yaml")
    text = recipe_with(criterion)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detr_ft.utils.yaml.check_regular", lambda path: None)
        patch.setattr(Path, "open", lambda *arguments, **options: io.BytesIO(text.encode()))
        recipe = check_keys(path)
        if recipe is not None:
            assert load_recipe(path) == recipe


@pytest.mark.parametrize("augment", ["none", "light", "detr", "strong"])
def test_named_augmentations_pass_the_quick_check(tmp_path: Path, augment: str) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_with(None, augment=augment))
    assert check_keys(tmp_path / "recipe.yaml") == load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("data", [{"augment": "strang"}, {"augment": {"use": "Light"}}, {"mixing_epochs": 2}])
def test_other_augmentations_need_the_whole_check(tmp_path: Path, data: dict[str, Any]) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_with(None, **data))
    assert check_keys(tmp_path / "recipe.yaml") is None


def test_every_mistake_in_keys_and_overrides_is_reported(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_with(None).replace("num_train_epochs", "epochs"))
    with pytest.raises(InputError) as caught:
        check_keys(tmp_path / "recipe.yaml", ["train.lr=1", "nonsense"])
    assert len(caught.value.problems) >= 3
