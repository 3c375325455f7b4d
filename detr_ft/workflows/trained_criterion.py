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
from detr_ft.recipe.load import read_recipe
from detr_ft.recipe.trust import CONSENT, unknown_code
from detr_ft.run_directory import RECIPE
from detr_ft.utils.components import ConfigureError, code_names, module_names

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
    code = [*code_names(description), *module_names(description)]
    if code:
        logger.info(
            "the criterion in the model's config.json has code of its own, which is not run: %s. "
            "%s's criterion matches instead",
            ", ".join(code), family.name,
        )  # fmt: skip
        return family.default_criterion()
    try:
        criterion = configure(description, activation=family.activation)
    except ConfigureError as error:
        places = [".".join(("detr_ft.criterion", *map(str, path))) for path, _ in error.problems]
        messages = [message for _, message in error.problems]
        raise InputError(
            [f"config.json of the model: {place}: {message}" for place, message in zip(places, messages, strict=True)]
        ) from error
    check_activation(criterion, family.activation)
    return criterion


def trained_by(model: str, detector: Detector, trust_code: bool = False) -> SetCriterion:
    """Return the criterion of a run's recipe, or else that of `criterion_of`.

    Its code runs if this user trained the run with the same code, or with `trust_code`. Without that, and for an invalid
    recipe, the criterion of the model's family is returned, and the reason is logged.
    """
    file, family = Path(model) / RECIPE, find_family(detector.model)
    if not file.is_file() or family is None:
        return criterion_of(detector) or detr_criterion()
    try:
        recipe = read_recipe(file)
        if recipe.criterion is None:
            return family.default_criterion()
        unknown = [] if trust_code else unknown_code(Path(model), recipe.criterion, recipe.folder)
        if unknown:
            raise InputError(f"{file} needs code that is not of a run of yours: {', '.join(unknown)}. {CONSENT}")
        criterion = configure(recipe.criterion, recipe.folder, family.activation)
        check_activation(criterion, family.activation)
    except (InputError, ConfigureError) as error:
        logger.warning("%s's criterion matches instead of the run's: %s", family.name, error)
        return family.default_criterion()
    return criterion
