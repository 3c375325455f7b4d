"""A recipe becomes a run: data, model, criterion, training, figures, report."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from detr_ft.criterion import SetCriterion
from detr_ft.criterion.serialization import describe
from detr_ft.data import load_data
from detr_ft.data.augmentation.check import try_augmentation
from detr_ft.data.pipeline.transforms import ImageFormat, TrainTransform
from detr_ft.data.schema import boxes_of_classes
from detr_ft.data.sources import category_numbers
from detr_ft.errors import InputError
from detr_ft.models.checkpoint_source import on_the_hub
from detr_ft.models.metadata import own_block
from detr_ft.recipe import Recipe, load_recipe
from detr_ft.report.example_pictures import write_examples
from detr_ft.report.html import RunReport, render_page
from detr_ft.report.summary import data_facts, described, verdict
from detr_ft.run_directory import HELD_OUT, METRICS, RECIPE, REPORT, RunDirectory
from detr_ft.structures import Detections
from detr_ft.training.callbacks import TrainResult
from detr_ft.training.launch import join
from detr_ft.training.monitor.display import Display, make_display
from detr_ft.training.preflight.probe import check_before_training
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.distributed import rank
from detr_ft.utils.energy import EnergyMeter
from detr_ft.utils.environment import _versions, environment, peak_memory_mib
from detr_ft.utils.progress import say
from detr_ft.workflows.evaluation_report import EvaluationReport, collect_report
from detr_ft.workflows.predictions_file import keep_thresholds, save_predictions
from detr_ft.workflows.prepare import Prepared, mixing_epochs, names_of, prepare, repeats
from detr_ft.workflows.resume import facts_of, is_finished, newest_checkpoint, tell_changes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOutcome:
    """What a run gave: where it lies, figures before and after on the validation split, and how long training took."""

    folder: Path
    before: dict[str, Any] | None
    after: dict[str, Any]
    detections: list[Detections]
    seconds: float
    better: str = ""  # on an earlier evaluation, where one was


def run_recipe(
    recipe: Recipe,
    criterion: SetCriterion,
    display: Display,
    data: DatasetDict | None = None,
    evaluate_before: bool = False,
    checkpoint: Path | None = None,
    force: bool = False,
) -> TrainOutcome:
    """Train by the recipe and leave a self-contained run directory. Raises InputError, TrainingError, Interrupted.

    `data` is what the recipe's source holds, where the caller has it already. With a `checkpoint` of the run in
    `train.output_dir` that one goes on; what changed since is told, and refused where it is vital, unless by `force`.
    """
    process = join(recipe.train.mixed_precision)
    if process.is_main_process and checkpoint is None:
        RunDirectory(recipe.train.output_dir).refuse_another_run()
    process.wait_for_everyone()
    prepared = prepare(recipe, data or load_data(recipe.data.source, box_format=recipe.data.box_format))
    recipe = recipe.pinned(prepared.revision)
    facts = facts_of(recipe, criterion, prepared.train, process.num_processes, _versions())
    if checkpoint is not None:
        tell_changes(checkpoint, facts, force)
    trainer = build_trainer(recipe, criterion, prepared, display, checkpoint, facts)
    check_before_training(trainer)
    if process.is_main_process:
        trainer.run.reopen()
        trainer.run.write_text(RECIPE, recipe.to_yaml(criterion))
        trainer.run.write_text(HELD_OUT, json.dumps(names_of(prepared.validation)) + "\n")
    before = trainer.evaluate().metrics if evaluate_before else None
    meter = EnergyMeter()
    result = trainer.train()
    # Of several processes each counts its own GPU, and all of one machine its processor.
    energy = meter.watt_hours() if process.num_processes == 1 else None
    if process.is_main_process:
        _write_results(trainer.run, recipe, criterion, trainer, prepared, before, result, energy)
    return TrainOutcome(trainer.run.path, before, result.metrics, result.detections, result.seconds, result.better)


def build_trainer(
    recipe: Recipe,
    criterion: SetCriterion,
    prepared: Prepared,
    display: Display,
    checkpoint: Path | None = None,
    facts: Mapping[str, Any] | None = None,
) -> DetrTrainer:
    """Return the trainer of a recipe. Raises InputError, also for an augmentation that fails."""
    augment = recipe.build_augmentation()
    fault = augment and try_augmentation(augment)
    if fault:
        raise InputError(f"data.augment: {fault}")
    start = recipe.model.checkpoint
    prepared.model.config.detr_ft = own_block(prepared.model.config) | {
        "criterion": describe(criterion),
        "base_model": start if start and on_the_hub(start) else None,
    }
    return DetrTrainer(
        prepared.model,
        criterion,
        prepared.train,
        prepared.validation,
        recipe.train,
        processor=prepared.processor,
        transform=TrainTransform(ImageFormat.of(prepared.processor), augment, mixing_epochs(recipe)),
        optim=recipe.optim,
        display=display,
        repeats=repeats(prepared.train, recipe.data.repeat_threshold),
        checkpoint=checkpoint,
        facts=facts,
        pretrained_fraction=prepared.loaded,
    )


def _write_results(
    folder: RunDirectory,
    recipe: Recipe,
    criterion: SetCriterion,
    trainer: DetrTrainer,
    prepared: Prepared,
    before: dict[str, Any] | None,
    result: TrainResult,
    energy: float | None,
) -> None:
    about = environment()
    command = " ".join(["detr-ft", *sys.argv[1:]])
    told = _told(trainer, criterion, prepared, result, about["hardware"])
    metrics = (told.assessment.as_json() if told else result.metrics) | {
        "before": before and {key: value for key, value in before.items() if key != "per_class"},
        "seconds": round(result.seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "watt_hours": energy and round(energy, 2),
        "data": data_facts(prepared),
        "speed": told and told.speed and asdict(told.speed),
        "voc": told and told.voc,
        "matching": told and told.matching,
        "environment": about,
        "command": command,
    }
    folder.write_text(METRICS, json.dumps(metrics, indent=2) + "\n")
    if told:
        save_predictions(folder, prepared.validation, result.detections, category_numbers(recipe.data.source))
        keep_thresholds(folder, told.assessment)
        thresholds = {name: one.threshold for name, one in told.assessment.thresholds.items()}
        write_examples(folder.path, prepared.validation, result.detections, thresholds)
    summary = RunReport(
        title=folder.path.name,
        verdict=" ".join(filter(None, [verdict(before, result.metrics), result.better])),
        before=before,
        log=result.log,
        data=described(recipe.data.source, prepared),
        criterion=str(criterion),
        recipe=recipe.to_yaml(criterion),
        environment=about,
        command=command,
    )
    folder.write_text(REPORT, render_page(replace(summary, **told.parts) if told else summary))


def _told(
    trainer: DetrTrainer, criterion: SetCriterion, prepared: Prepared, result: TrainResult, hardware: str
) -> EvaluationReport | None:
    """What the held-out images say of the model as it was saved; None where they hold nothing to measure."""
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


def say_outcome(outcome: TrainOutcome) -> None:
    """What happened and what to type next, in four lines."""
    took = f"{outcome.seconds:.0f} seconds" if outcome.seconds < 60 else f"{outcome.seconds / 60:.1f} minutes"
    lines = [
        verdict(outcome.before, outcome.after),
        *filter(None, [outcome.better]),
        f"Training took {took}. The model, its recipe, log and figures are in {outcome.folder}",
        f"See it:              open {outcome.folder / REPORT}",
        f"Try it:              detr-ft demo {outcome.folder}",
    ]
    for line in lines:
        logger.info("%s", line)


def train_by(path: Path, overrides: Sequence[str], resume: bool, force: bool) -> None:
    """Train by a recipe, from the beginning or from where its run was stopped, and say what came of it."""
    if force and not resume:
        raise InputError("--force goes with --resume")
    recipe, criterion = load_recipe(path, overrides)
    checkpoint = newest_checkpoint(recipe) if resume else None
    if checkpoint and is_finished(recipe, checkpoint):
        say(
            f"{recipe.train.output_dir} is finished, {recipe.train.num_train_epochs} epochs: nothing is left to do. "
            f"With more epochs (train.num_train_epochs=...) it goes on"
        )
        return
    if resume and checkpoint is None and rank() == 0:
        RunDirectory(recipe.train.output_dir).clear_beginnings()
    say(str(criterion))
    say_outcome(run_recipe(recipe, criterion, make_display(), checkpoint=checkpoint, force=force))
