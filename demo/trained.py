"""The criterion that a model was trained by, so that its own matcher, costs and losses can be looked at."""

from __future__ import annotations

import logging
from pathlib import Path

from detr_ft.criterion import SetCriterion, detr_criterion
from detr_ft.errors import UserError
from detr_ft.inference import Detector
from detr_ft.recipe import load_recipe
from detr_ft.workflows.trained_criterion import criterion_of

logger = logging.getLogger(__name__)


def trained_by(model: str, detector: Detector) -> SetCriterion:
    """Of a run on this machine the one of its recipe, with the code that it was trained by; else what the model tells of it.

    Code of a model from elsewhere is not run: it is looked at by DETR's own criterion.
    """
    recipe = Path(model) / "recipe.yaml"
    if recipe.is_file():
        try:
            return load_recipe(recipe)[1]
        except UserError as error:
            logger.warning("the matching is looked at by DETR's own criterion: %s", error)
            return detr_criterion()
    return criterion_of(detector) or detr_criterion()
