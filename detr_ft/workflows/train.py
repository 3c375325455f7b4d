"""Train by a recipe, or by settings given in Python, over one seed or several."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from datasets import DatasetDict

from detr_ft.criterion import SetCriterion
from detr_ft.criterion.serialization import describe
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import MetricName
from detr_ft.recipe.load import BuiltRecipe, build_file, build_recipe, build_values
from detr_ft.recipe.recipe import Recipe
from detr_ft.recipe.values import Changes
from detr_ft.training.callbacks import Callback, check_callbacks
from detr_ft.training.settings import OptimSettings
from detr_ft.utils.arguments import model_text, path_text
from detr_ft.workflows.run import TrainOutcome, run
from detr_ft.workflows.seeds import SeedsOutcome, run_seeds
from detr_ft.workflows.splits import DataLike, ModelLike, PathLike, RecipeLike, read_data


class TrainOptions(TypedDict, total=False):
    """The settings of `TrainSettings` as keyword arguments of `train`."""

    output_dir: PathLike
    num_train_epochs: int
    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    weight_decay: float
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "cosine", "linear", "polynomial", "step"]
    warmup_steps: float
    lr_power: float | None
    lr_drop_epochs: list[int]
    max_grad_norm: float
    ema_decay: float | None
    bf16: bool
    fp16: bool
    gradient_checkpointing: bool
    torch_compile: bool
    cuda_graphs: bool
    full_determinism: bool
    dataloader_num_workers: int
    dataloader_timeout: float
    logging_steps: int
    eval_epochs: int
    metric_for_best_model: MetricName
    early_stopping_patience: int | None
    early_stopping_threshold: float
    max_minutes: float | None
    load_best_model_at_end: bool
    save_steps: int | None
    save_total_limit: int
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio", "comet_ml", "aim", "clearml", "swanlab"]]
    seed: int


@overload
def train(
    recipe: RecipeLike | None = None,
    overrides: Sequence[str] = (),
    *,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    criterion: SetCriterion | None = None,
    optim: OptimSettings | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    force: bool = False,
    seeds: None = None,
    **settings: Unpack[TrainOptions],
) -> TrainOutcome: ...


@overload
def train(
    recipe: RecipeLike | None = None,
    overrides: Sequence[str] = (),
    *,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    criterion: SetCriterion | None = None,
    optim: OptimSettings | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    force: bool = False,
    seeds: Sequence[int],
    **settings: Unpack[TrainOptions],
) -> SeedsOutcome: ...


def train(
    recipe: RecipeLike | None = None,
    overrides: Sequence[str] = (),
    *,
    model: ModelLike | None = None,
    data: DataLike | None = None,
    criterion: SetCriterion | None = None,
    optim: OptimSettings | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    force: bool = False,
    seeds: Sequence[int] | None = None,
    **settings: Unpack[TrainOptions],
) -> TrainOutcome | SeedsOutcome:
    """Train a model and write a self-contained run directory.

    With a recipe (a file or a `Recipe`), every other argument replaces its value. Without one, give `model` (a
    checkpoint), `data` and `output_dir`; what is left out is as in a recipe that leaves it out. `overrides` are
    `section.key=value` for any other value: `["data.longest_edge=640", "model.freeze=[backbone]"]`. Data of `load_data`
    that are unchanged are recorded by their specification; other objects can't be read again from the run's recipe.
    `callbacks` run at steps, evaluations and saves. `resume` continues from the newest checkpoint of the run if there is
    one, with `force` also if classes or training data changed. `seeds` trains a run for each seed, with the same
    validation images, and returns their statistics. Raises InputError, TrainingError, CallbackError, and Interrupted
    after SIGINT or SIGTERM.
    """
    if force and not resume:
        raise InputError("force (--force) continues a run whose classes or data changed. Give resume (--resume) too")
    _check_objects(criterion, optim, callbacks)
    built, splits = _request(recipe, overrides, model, data, criterion, optim, settings)
    if seeds is not None:
        return run_seeds(built, seeds, splits, callbacks=callbacks, resume=resume, force=force)
    return run(built, splits, callbacks=callbacks, resume=resume, force=force)


def _request(
    recipe: RecipeLike | None,
    overrides: Sequence[str],
    model: ModelLike | None,
    data: DataLike | None,
    criterion: SetCriterion | None,
    optim: OptimSettings | None,
    settings: Mapping[str, Any],
) -> tuple[BuiltRecipe, DatasetDict | None]:
    """Return the recipe with everything given in its place, and the data if they were given as objects."""
    changes: Changes = {}
    if recipe is None and (model is None or data is None):
        raise InputError("train: give a recipe, or model, data and output_dir")
    if model is not None:
        changes["model"] = {"checkpoint": model_text(model)}
    splits = None
    if isinstance(data, str | os.PathLike):
        changes["data"] = {"source": os.fspath(data)}
    elif data is not None:
        given = read_data(data)
        changes["data"], splits = {"source": given.source, **given.options}, given.splits
    if settings:
        changes["train"] = {
            key: path_text(key, value) if key == "output_dir" else value for key, value in settings.items()
        }
    if optim is not None:
        changes["optim"] = optim.model_dump(mode="json")
    if criterion is not None:
        changes["criterion"] = None
    if isinstance(recipe, Recipe):
        built = build_recipe(recipe, overrides, changes)
    elif recipe is not None:
        built = build_file(Path(path_text("recipe", recipe, "a file or a Recipe")), overrides, changes)
    else:
        built = build_values({}, overrides, changes)
    if criterion is None:
        return built, splits
    try:
        describe(criterion)
    except TypeError as error:
        raise InputError(f"criterion: {error}") from error
    return built.with_criterion(criterion), splits


def _check_objects(criterion: object, optim: object, callbacks: object) -> None:
    """Raise InputError with every argument of another class."""
    problems = []
    if criterion is not None and not isinstance(criterion, SetCriterion):
        problems.append(
            f"criterion: must be a SetCriterion, got {criterion!r}. Build one with SetCriterion(matcher, losses)"
        )
    if optim is not None and not isinstance(optim, OptimSettings):
        problems.append(
            f"optim: must be OptimSettings, got {optim!r}. Write OptimSettings(backbone_learning_rate=1e-5)"
        )
    try:
        check_callbacks(callbacks)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
