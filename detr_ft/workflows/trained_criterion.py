"""The criterion that a model was trained with."""

from __future__ import annotations

import logging
from pathlib import Path

from detr_ft.criterion import SetCriterion, detr_criterion
from detr_ft.criterion.serialization import configure
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models.families import find_family
from detr_ft.models.metadata import read_criterion
from detr_ft.recipe import load_recipe
from detr_ft.run_directory import RECIPE
from detr_ft.utils.components import ConfigureError, code_files
from detr_ft.utils.progress import say

logger = logging.getLogger(__name__)


def criterion_of(detector: Detector) -> SetCriterion | None:
    """The criterion that a DETR was trained by, where its config tells of one that needs no code; else DETR's own.

    None for a model of another family: there is no matching to look at.
    """
    family = find_family(detector.model)
    if family is None or "recipes" not in family.supports:
        return None
    told = read_criterion(detector.model.config)
    if not told:
        return family.default_criterion()
    if code_files(told, Path()):
        say("its criterion has code of its own, which isn't run here: the matching is looked at by DETR's own")
        return family.default_criterion()
    try:
        return configure(told, Path())
    except ConfigureError as error:
        raise InputError(
            [f"config.json of the model: detr_ft.criterion.{fault}" for fault in str(error).split("; ")]
        ) from error


def trained_by(model: str, detector: Detector) -> SetCriterion:
    """Of a run on this machine the one of its recipe, with the code that it was trained by; else what the model tells of it.

    Code of a model from elsewhere is not run: it is looked at by DETR's own criterion.
    """
    recipe = Path(model) / RECIPE
    if recipe.is_file():
        try:
            return load_recipe(recipe)[1]
        except InputError as error:
            logger.warning("the matching is looked at by DETR's own criterion: %s", error)
            return detr_criterion()
    return criterion_of(detector) or detr_criterion()
