"""The main job on embedded data: make it, check it, train, report."""

from __future__ import annotations

import logging
from pathlib import Path

from detr_ft.data import load_data
from detr_ft.data.doctor import examine
from detr_ft.recipe import load_recipe
from detr_ft.run_directory import RunDirectory
from detr_ft.training.monitor.display import make_display
from detr_ft.utils.assets import recipes_folder
from detr_ft.workflows.train import TrainOutcome, run_recipe, say_outcome

logger = logging.getLogger(__name__)

RECIPE = "quickstart/workshop.yaml"


def run_quickstart(output_dir: Path | None = None) -> TrainOutcome:
    """Run the quickstart's recipe, figures before and after, into a new folder."""
    path = recipes_folder() / RECIPE
    recipe, criterion = load_recipe(path, [f"train.output_dir={_free_folder(output_dir)}"])
    logger.info("quickstart: %s", path)
    logger.info("making the data set %s and looking through it", recipe.data.source)
    RunDirectory(recipe.train.output_dir).refuse_another_run()
    data = load_data(recipe.data.source, box_format=recipe.data.box_format)
    findings = examine(data).findings
    logger.info("the doctor found %d defects", len([one for one in findings if one.level != "info"]))
    logger.info("%s", criterion)
    outcome = run_recipe(recipe, criterion, make_display(), data, evaluate_before=True)
    say_outcome(outcome)
    logger.info("Use your own data:   detr-ft new PATH/TO/DATA -o mine.yaml && detr-ft train mine.yaml")
    return outcome


def _free_folder(wanted: Path | None) -> Path:
    if wanted is not None:
        return wanted
    first = Path("runs/quickstart")
    candidates = [first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 1000))]
    return next(folder for folder in candidates if not folder.exists())
