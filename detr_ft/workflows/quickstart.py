"""Fine-tune the embedded checkpoint on embedded data, from the data check to the report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from detr_ft.data.doctor import Diagnosis, examine
from detr_ft.recipe.load import build_file
from detr_ft.run_directory import RunDirectory
from detr_ft.utils.assets import recipes_folder
from detr_ft.workflows.run import TrainOutcome, run
from detr_ft.workflows.splits import PathLike, read_source

logger = logging.getLogger(__name__)

RECIPE = "quickstart/workshop.yaml"
_MAX_FOLDERS = 1000


@dataclass(frozen=True)
class QuickstartOutcome:
    """The recipe of the quickstart, the diagnosis of its data, and its run."""

    recipe: Path
    diagnosis: Diagnosis
    run: TrainOutcome


def quickstart(output_dir: PathLike | None = None) -> QuickstartOutcome:
    """Run the recipe of the quickstart. Raises InputError.

    `output_dir` is a new folder, by default `runs/quickstart`, `runs/quickstart-2` and so on.
    """
    path = recipes_folder() / RECIPE
    folder = _free_folder() if output_dir is None else Path(output_dir)
    built = build_file(path, [f"train.output_dir={folder}"])
    logger.info("quickstart: %s", path)
    RunDirectory(folder).refuse_another_run()
    logger.info("making and examining the data set %s", built.recipe.data.source)
    data = read_source(built.recipe.data)
    diagnosis = examine(data)
    defects = sum(finding.level != "info" for finding in diagnosis.findings)
    logger.info("the doctor found %d defects", defects)
    return QuickstartOutcome(path, diagnosis, run(built, data, evaluate_before=True))


def _free_folder() -> Path:
    first = Path("runs/quickstart")
    candidates = [first, *(first.with_name(f"{first.name}-{number}") for number in range(2, _MAX_FOLDERS))]
    return next(folder for folder in candidates if not folder.exists())
