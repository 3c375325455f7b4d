"""The criterion that a model was trained with."""

from __future__ import annotations

import logging
from pathlib import Path

from detr_ft.criterion import SetCriterion, check_activation, detr_criterion
from detr_ft.criterion.serialization import configure
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models.families import find_family
from detr_ft.models.metadata import read_criterion
from detr_ft.recipe.load import build_file
from detr_ft.run_directory import RECIPE
from detr_ft.utils.components import ConfigureError, code_files, script_classes

logger = logging.getLogger(__name__)


def criterion_of(detector: Detector) -> SetCriterion | None:
    """Return the criterion in a model's config, or its family's if that has none or needs code of its own.

    None for a model of another family, whose matching can't be computed. Raises InputError for an invalid criterion.
    """
    family = find_family(detector.model)
    if family is None or "recipes" not in family.supports:
        return None
    description = read_criterion(detector.model.config)
    if not description:
        return family.default_criterion()
    if code_files(description, Path()) or script_classes(description):
        logger.info(
            "the model's criterion has code of its own, which is not run: %s's criterion matches instead", family.name
        )
        return family.default_criterion()
    try:
        criterion = configure(description, Path(), family.activation)
    except ConfigureError as error:
        places = [".".join(("detr_ft.criterion", *map(str, path))) for path, _ in error.problems]
        messages = [message for _, message in error.problems]
        raise InputError(
            [f"config.json of the model: {place}: {message}" for place, message in zip(places, messages, strict=True)]
        ) from error
    check_activation(criterion, family.activation)
    return criterion


def trained_by(model: str, detector: Detector) -> SetCriterion:
    """Return the criterion of a run's recipe with its own code, or else that of `criterion_of`.

    Code of a model without a recipe is not run.
    """
    recipe = Path(model) / RECIPE
    if recipe.is_file():
        try:
            built = build_file(recipe)
            for file in code_files(built.recipe.criterion, built.recipe.folder):
                logger.info("%s runs code: %s", recipe, file)
            return built.criterion
        except InputError as error:
            family = find_family(detector.model)
            default = "DETR" if family is None else family.name
            logger.warning("%s's criterion matches instead of the run's: %s", default, error)
            return detr_criterion() if family is None else family.default_criterion()
    return criterion_of(detector) or detr_criterion()
