"""The verbs of training: `quickstart`, `check`, `train` and `replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detr_ft.cli.console import print_message, print_result, warn
from detr_ft.cli.early_checks import check_paths, check_recipe, check_recipe_paths
from detr_ft.cli.options import Overrides, RecipeFile, TrustCode
from detr_ft.errors import InputError
from detr_ft.recipe.values import check_keys


def quickstart(
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the run to this new folder; default: runs/quickstart, -2, -3 ..."),
    ] = None,
) -> None:
    """Fine-tune the embedded checkpoint on embedded data, from start to report, in a few minutes on a CPU."""
    from detr_ft.cli.text import describe_training
    from detr_ft.workflows.quickstart import quickstart as run_quickstart

    print_message(describe_training(run_quickstart(output_dir).run))
    print_message("Use your own data:   detr-ft new PATH/TO/DATA -o mine.yaml && detr-ft train mine.yaml")


def check(
    recipe: RecipeFile,
    overrides: Overrides = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Also overfit one batch and estimate time and memory; default: values and terms only"
        ),
    ] = False,
    time_limit: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=1,
            show_default=False,
            help="End the test of criterion and augmentation after so many seconds; default: 120",
        ),
    ] = 120,
) -> None:
    """Check every key of a recipe and its criterion in seconds on the CPU.

    Data and checkpoint are checked by --probe, which takes a few minutes, and by `train` before it begins. Code of the
    recipe runs in a process of its own.
    """
    check_keys(recipe, overrides or [])
    from detr_ft.cli.check_process import check_in_child, probe_in_child

    outcome = check_in_child(recipe, overrides or [], probe, time_limit)
    problems = [*outcome["problems"], *(outcome["missing"] if probe else ())]
    if problems:
        raise InputError(problems)
    print_message(outcome["text"])
    for path in outcome["missing"]:
        warn(f"not found here: {path}")
    if probe:
        print_result(probe_in_child(recipe, overrides or []))


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue from the newest checkpoint in train.output_dir; default: a new run"),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --resume, continue even if classes or training data changed; default: stop"),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Train a run for each of these seeds, as in 0,1,2, and summarize them; default: train.seed",
        ),
    ] = None,
) -> None:
    """Train by a recipe and write a run directory."""
    check_recipe_paths(check_recipe(recipe, overrides or []), resume)
    from detr_ft.cli.text import describe_seeds, describe_training
    from detr_ft.workflows.train import train as train_recipe

    if seeds is None:
        outcome = train_recipe(recipe, overrides or [], resume=resume, force=force)
        if not outcome.was_finished:
            print_message(describe_training(outcome))
        return
    runs = train_recipe(recipe, overrides or [], resume=resume, force=force, seeds=parse_seeds(seeds))
    print_message(describe_seeds(runs))


def parse_seeds(text: str) -> list[int]:
    """Return the seeds in `0,1,2`. Raises InputError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text}: must be whole numbers separated by commas, as in 0,1,2")
    return [int(part) for part in parts]


def replay(
    capsule: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder that a failed run wrote: RUN/failures/step-N")
    ],
    trust_code: TrustCode = False,
) -> None:
    """Repeat a failed step on the CPU and locate the first NaN or infinity."""
    check_paths(files=[capsule])
    from detr_ft.cli.text import describe_replay
    from detr_ft.workflows.replay import replay as replay_step

    print_result(describe_replay(replay_step(capsule, trust_code=trust_code)))
