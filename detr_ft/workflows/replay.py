"""Repeat a failed training step on the CPU and locate its first NaN or infinity."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from detr_ft.criterion.serialization import configure
from detr_ft.errors import InputError
from detr_ft.recipe.trust import CONSENT, unknown_code
from detr_ft.run_directory import FAILURES
from detr_ft.training.failures.capsule import describe_images
from detr_ft.training.failures.replay import Capsule, Verdict
from detr_ft.training.failures.replay import replay as replay_capsule
from detr_ft.utils.arguments import path_text
from detr_ft.utils.components import ConfigureError
from detr_ft.utils.progress import status
from detr_ft.workflows.splits import PathLike

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplayOutcome:
    """A repeated step: its number, why it failed in training, and the origin of the failure.

    `verdict` is None if every value was finite on this CPU.
    """

    step: int
    why: str
    verdict: Verdict | None


def replay(capsule: PathLike, *, trust_code: bool = False) -> ReplayOutcome:
    """Repeat the step of a failure capsule, the folder `RUN/failures/step-N`.

    Runs the code of its criterion if the run was trained by this user with the same code, or with `trust_code`.
    Raises InputError.
    """
    folder = Path(path_text("capsule", capsule))
    capsules = sorted((folder / FAILURES).glob("step-*"), key=lambda path: (len(path.name), path.name))
    if capsules:
        raise InputError(
            f"{folder}: must be the folder of a failed step, got that of a run. Give {' or '.join(map(str, capsules))}"
        )
    opened = Capsule(folder)
    unknown = [] if trust_code else unknown_code(folder, opened.criterion, opened.code_folder)
    if unknown:
        raise InputError(
            [f"{folder}: its criterion needs code that is not of a run of yours: {code}. {CONSENT}" for code in unknown]
        )
    try:
        criterion = configure(opened.criterion, opened.code_folder)
    except ConfigureError as error:
        raise InputError(
            [f"{folder}: its criterion can't be built: {message}" for _, message in error.problems]
        ) from error
    logger.info("step %d, images %s; in training: %s", opened.number, describe_images(opened.images), opened.why)
    with status("repeating the step"):
        return ReplayOutcome(opened.number, opened.why, replay_capsule(opened, criterion))
