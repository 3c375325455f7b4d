"""One run: data, model, training, results and report of a recipe, in a self-contained folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.criterion import SetCriterion
from detr_ft.criterion.serialization import describe
from detr_ft.data.augmentation.check import try_augmentation
from detr_ft.data.pipeline.dataset import TrainTransform
from detr_ft.data.schema import boxes_of_classes, class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.metrics import COCO_METRICS, EvaluationMetrics, RunMetrics
from detr_ft.models.load import commit_of
from detr_ft.models.locate import is_on_hub
from detr_ft.models.metadata import write_criterion, write_thresholds
from detr_ft.recipe.code import RecipeCode
from detr_ft.recipe.load import BuiltRecipe, build_recipe
from detr_ft.recipe.paths import missing_paths, synonyms_problems
from detr_ft.recipe.recipe import Recipe
from detr_ft.report.content import EvaluationReport, RunReport
from detr_ft.report.headline import headline, next_steps, within_noise
from detr_ft.report.pictures import write_examples
from detr_ft.report.summary import data_facts, describe_data
from detr_ft.run_directory import EXAMPLES, HELD_OUT, RECIPE, REPORT, RunDirectory
from detr_ft.structures import Detections
from detr_ft.training.callbacks import Callback, TrainResult
from detr_ft.training.checkpoint.best import check_best
from detr_ft.training.launch import exclusive, join, on_main_process
from detr_ft.training.monitor.display import Display, make_display
from detr_ft.training.preflight.probe import check_before_training
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.complete_folder import clean_up
from detr_ft.utils.energy import EnergyMeter
from detr_ft.utils.environment import environment, peak_memory_mib, versions
from detr_ft.utils.files import check_writable, writing
from detr_ft.workflows.predictions_file import save_predictions
from detr_ft.workflows.prepare import Prepared, prepare, repeats
from detr_ft.workflows.results import collect_report, command_line, write_metrics, write_report
from detr_ft.workflows.resume import check_changes, choose_threads, facts_of, finished_metrics, newest_checkpoint
from detr_ft.workflows.splits import category_ids, image_names, read_source

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainOutcome(os.PathLike[str]):
    """A finished run; its functions take it where they take the path of a run.

    `metrics` and `detections` are of the saved model on the `validation` images. `better` is a sentence on an earlier and
    better evaluation, if there was one. A run that was finished before has neither detections nor validation images.
    """

    folder: Path
    metrics: RunMetrics
    detections: tuple[Detections, ...] = ()
    validation: Dataset | None = None
    seconds: float = 0.0
    better: str = ""
    was_finished: bool = False

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.folder / REPORT


def run(
    built: BuiltRecipe,
    data: DatasetDict | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    force: bool = False,
    evaluate_before: bool = False,
) -> TrainOutcome:
    """Train by a recipe and write a self-contained run directory.

    `data` are those of the recipe if the caller has read them. `resume` continues from the newest checkpoint of the run, if
    there is one; changes since then are logged, and raise InputError if classes or training data changed, unless `force`.
    Raises InputError, also for a folder that another process writes into, TrainingError, and Interrupted after a signal.
    """
    join(built.recipe.train.mixed_precision)
    with exclusive(built.recipe.train.output_dir):
        return _run(built, data, callbacks, resume, force, evaluate_before)


def _run(
    built: BuiltRecipe,
    data: DatasetDict | None,
    callbacks: Sequence[Callback],
    resume: bool,
    force: bool,
    evaluate_before: bool,
) -> TrainOutcome:
    recipe, code = built.recipe, RecipeCode.read(built)
    checkpoint = newest_checkpoint(recipe) if resume else None
    folder = RunDirectory(recipe.train.output_dir)
    metrics = checkpoint and finished_metrics(recipe, checkpoint)
    if metrics:
        logger.info(
            "%s is finished, %d epochs: nothing is left to do. To continue raise train.num_train_epochs",
            folder.path, recipe.train.num_train_epochs,
        )  # fmt: skip
        return TrainOutcome(folder.path, metrics, was_finished=True)
    problems = [*missing_paths(recipe, with_data=data is None), *synonyms_problems(recipe)]
    if problems:
        raise InputError(problems)
    if resume and checkpoint is None:
        on_main_process(folder.clear_beginnings)
    if checkpoint is None:
        on_main_process(folder.refuse_another_run)
    else:
        check_writable(folder.path)
        on_main_process(lambda: clean_up(folder.checkpoints))
        if recipe.train.load_best_model_at_end:
            check_best(folder, checkpoint, recipe.train)  # the trainer does so again, after the data are read
    logger.info("%s", built.criterion)
    return _train(built, code, data, callbacks, checkpoint, force, evaluate_before)


def with_family(built: BuiltRecipe) -> BuiltRecipe:
    """Return a recipe with the family of its checkpoint, and the criterion for it.

    Downloads the config of a checkpoint on the Hub. Raises InputError.
    """
    section = built.recipe.model
    if built.family is not None or section.checkpoint is None or not is_on_hub(section.checkpoint):
        return built
    commit_of(section.checkpoint, section.revision)
    complete = build_recipe(built.recipe)
    if built.has_given_criterion:
        return complete.with_criterion(built.criterion)
    if complete.criterion != built.criterion:
        logger.info("%s", complete.criterion)
    return complete


def build_trainer(
    built: BuiltRecipe,
    prepared: Prepared,
    display: Display,
    checkpoint: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> DetrTrainer:
    """Return the trainer of a recipe, which is not set up. Raises InputError."""
    recipe = built.recipe
    start = recipe.model.checkpoint
    base_model = start if start and is_on_hub(start) else None
    write_criterion(prepared.model.config, describe(built.criterion), base_model)
    return DetrTrainer(
        prepared.model,
        built.criterion,
        prepared.train,
        prepared.validation,
        recipe.train,
        processor=prepared.processor,
        transform=TrainTransform(prepared.format, built.augmentation, recipe.mixing_epochs),
        optim=recipe.optim,
        display=display,
        repeats=repeats(prepared.train, recipe.data.repeat_threshold),
        checkpoint=checkpoint,
        facts=facts,
        callbacks=callbacks,
        pretrained_fraction=prepared.loaded,
    )


def _train(
    built: BuiltRecipe,
    code: RecipeCode,
    data: DatasetDict | None,
    callbacks: Sequence[Callback],
    checkpoint: Path | None,
    force: bool,
    evaluate_before: bool,
) -> TrainOutcome:
    process = join(built.recipe.train.mixed_precision)
    choose_threads(checkpoint)
    check_augmentation(built)
    data = read_source(built.recipe.data) if data is None else data
    built = with_family(built)
    prepared = prepare(built.recipe, data)
    built = replace(built, recipe=built.recipe.pinned(prepared.revision))
    recorded = code.recorded(built, Path(built.recipe.train.output_dir))
    facts = facts_of(recorded, prepared.train, process.num_processes, versions())
    if checkpoint is not None:
        check_changes(checkpoint, facts, force)
    trainer = build_trainer(built, prepared, make_display(), checkpoint, facts, callbacks)
    check_before_training(trainer)
    on_main_process(lambda: _record(trainer.run, recorded, built, code, prepared.validation))
    before = trainer.evaluate().metrics if evaluate_before else None
    meter = EnergyMeter()
    result = trainer.train()
    # Each of several processes meters its own GPU, and all of a machine meter the same processor.
    energy = meter.watt_hours() if process.num_processes == 1 else None
    if process.is_main_process:
        metrics = _write_results(built, recorded.to_yaml(), trainer, prepared, before, result, energy)
    else:
        metrics = RunMetrics(**vars(EvaluationMetrics.of_coco(result.metrics)))
    names = class_names(prepared.validation)
    detections = tuple(replace(image, names=names) for image in result.detections)
    return TrainOutcome(
        trainer.run.path, metrics, detections, prepared.validation, result.seconds, _better(result, metrics)
    )


def _record(folder: RunDirectory, recipe: Recipe, built: BuiltRecipe, code: RecipeCode, validation: Dataset) -> None:
    """Write what describes a run before it begins, in place of the results of an earlier end."""
    folder.reopen()
    folder.write_text(RECIPE, recipe.to_yaml())
    code.write(built, folder)
    folder.write_text(HELD_OUT, json.dumps(image_names(validation)) + "\n")


def _better(result: TrainResult, metrics: EvaluationMetrics) -> str:
    """Return the sentence on a better evaluation, empty if it was better by no more than noise."""
    maps = [row["map"] for row in result.log if row.get("map") is not None]
    return "" if maps and within_noise(metrics, max(maps)) else result.better


def check_augmentation(built: BuiltRecipe) -> None:
    """Raise InputError if the augmentation fails on generated images."""
    fault = None if built.augmentation is None else try_augmentation(built.augmentation)
    if fault is not None:
        raise InputError(f"data.augment: {fault}")


def _write_results(
    built: BuiltRecipe,
    recipe_text: str,
    trainer: DetrTrainer,
    prepared: Prepared,
    before: Mapping[str, Any] | None,
    result: TrainResult,
    energy: float | None,
) -> RunMetrics:
    """Write report, detections, thresholds, example pictures and, last, the metrics of a finished run."""
    recipe, folder, about, command = built.recipe, trainer.run, environment(), command_line()
    peak = peak_memory_mib()  # before the report, whose benchmark starts a new measurement
    report = _report(trainer, built.criterion, prepared, result, about["hardware"])
    metrics = RunMetrics(
        **vars(replace(report.metrics if report else EvaluationMetrics.of_coco(result.metrics), environment=about)),
        before={name: before[name] for name in COCO_METRICS} if before else None,
        seconds=round(result.seconds, 1),
        peak_memory_mib=peak,
        watt_hours=energy and round(energy, 2),
        data=data_facts(prepared.train, prepared.validation, prepared.skipped),
        command=command,
    )
    maps = [row["map"] for row in result.log if row.get("map") is not None]
    steps = next_steps(metrics, result.end, maps, len(prepared.train), str(folder.path))
    metrics = replace(metrics, end=replace(result.end, next_steps=steps))
    page = RunReport(
        title=folder.path.name,
        verdict=" ".join(filter(None, [headline(metrics, before=before, end=metrics.end), _better(result, metrics)])),
        next_steps=steps,
        evaluation=report,
        before=before,
        log=result.log,
        data=describe_data(recipe.data.source, prepared.train, prepared.validation),
        criterion=str(built.criterion),
        recipe=recipe_text,
        environment=about,
        command=command,
    )
    write_report(folder, page)
    if report:
        save_predictions(folder, prepared.validation, result.detections, category_ids(recipe.data.source))
        choices = report.assessment.thresholds
        write_thresholds(folder, {name: round(best.threshold, 4) for name, best in choices.items() if best.f1 > 0})
        thresholds = {name: choice.threshold for name, choice in choices.items()}
        with writing(folder.path / EXAMPLES):
            pictures = write_examples(folder.path, prepared.validation, result.detections, thresholds)
        folder.record(picture.relative_to(folder.path).as_posix() for picture in pictures)
    write_metrics(folder, metrics)
    return metrics


def _report(
    trainer: DetrTrainer, criterion: SetCriterion, prepared: Prepared, result: TrainResult, hardware: str
) -> EvaluationReport | None:
    """Collect the report of the saved model; None if the validation images have no objects."""
    if not len(prepared.validation) or result.metrics.get("map") is None:
        return None
    return collect_report(
        trainer.model,
        trainer.processor,
        criterion,
        prepared.validation,
        result.detections,
        hardware,
        trainer.settings.per_device_eval_batch_size,
        boxes_of_classes(prepared.train),
    )
