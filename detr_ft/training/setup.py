"""The parts of a run, in the order in which `DetrTrainer.setup` builds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from transformers import PreTrainedModel, enable_full_determinism

from detr_ft.criterion import SetCriterion
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.pipeline.sampling import BatchSampler, aspect_ratios
from detr_ft.models.attach import AttachedCriterion
from detr_ft.models.optimizations import fused_norms, memory, no_sync
from detr_ft.run_directory import RunDirectory
from detr_ft.training.callbacks import Callbacks
from detr_ft.training.checkpoint.state import load_weights
from detr_ft.training.cuda_graphs import build_forward_backward
from detr_ft.training.ema import Ema
from detr_ft.training.monitor.display import Display
from detr_ft.training.monitor.evaluator import Evaluator
from detr_ft.training.monitor.monitor import Monitor
from detr_ft.training.monitor.training_log import TrainLog
from detr_ft.training.optimizer import build_optimizer, build_schedule
from detr_ft.training.settings import OptimSettings, TrainSettings
from detr_ft.training.step import Stepper
from detr_ft.training.step_loader import StepLoader


def seed_everything(settings: TrainSettings) -> None:
    """Seed the random numbers, and make torch deterministic if the settings require it."""
    if settings.full_determinism:
        enable_full_determinism(settings.seed)
    else:
        set_seed(settings.seed)


def prepare_model(model: PreTrainedModel, checkpoint: Path | None) -> None:
    """Load the weights of a checkpoint, if given, and apply optimizations that keep the function."""
    if checkpoint is not None:
        load_weights(model, checkpoint)
    fused_norms.apply(model)
    no_sync.apply(model)
    # Convolutions are faster with the channels of a pixel contiguous, on CPUs and on GPUs with tensor cores.
    model.to(memory_format=torch.channels_last)


def build_loader(
    accelerator: Accelerator,
    split: Dataset,
    transform: TrainTransform,
    settings: TrainSettings,
    repeats: Sequence[float] | None,
) -> StepLoader:
    """Return the loader of this process's batches."""
    canvas = transform.format.canvas
    processes = accelerator.num_processes
    images_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * processes
    # Each shape of batch is captured, or compiled, separately.
    few_shapes = settings.torch_compile or (settings.cuda_graphs and accelerator.device.type == "cuda")
    shapes = None if canvas else aspect_ratios(split)
    return StepLoader(
        examples=TrainDataset(split, transform, settings.seed),
        batches=BatchSampler(len(split), images_per_step, settings.seed, aspect_ratios=shapes, repeats=repeats),
        epochs=settings.num_train_epochs,
        micro_batch_size=settings.per_device_train_batch_size,
        process=accelerator.process_index,
        processes=processes,
        workers=settings.dataloader_num_workers,
        canvas=canvas,
        rounding=transform.format.rounding if few_shapes else 1,
        timeout=settings.dataloader_timeout,
    )


def build_stepper(
    accelerator: Accelerator,
    model: PreTrainedModel,
    attached: AttachedCriterion,
    criterion: SetCriterion,
    form: ImageFormat,
    settings: TrainSettings,
    optim: OptimSettings,
    steps: int,
) -> Stepper:
    """Return the stepper of a run of so many steps, and move the model to its device."""
    optimizer = build_optimizer(model, settings, optim)
    memory.apply(model, settings.gradient_checkpointing, settings.torch_compile)
    prepared: tuple[Any, Any] = accelerator.prepare(model, optimizer)
    wrapped, prepared_optimizer = prepared
    return Stepper(
        accelerator=accelerator,
        model=model,
        forward_backward=build_forward_backward(accelerator, model, wrapped, attached, settings),
        optimizer=prepared_optimizer,
        schedule=build_schedule(optimizer, settings, steps),  # `prepare` would step it once for each process
        criterion=criterion,
        attached=attached,
        format=form,
        settings=settings,
        max_images=settings.per_device_train_batch_size,
        ema=Ema(model, settings.ema_decay) if settings.ema_decay else None,
    )


def build_monitor(
    stepper: Stepper,
    loader: StepLoader,
    processor: Any,
    eval_dataset: Dataset | None,
    run: RunDirectory,
    display: Display,
    callbacks: Callbacks,
    pretrained_fraction: float | None,
) -> Monitor:
    """Return the observers of a run."""
    settings, accelerator, train_dataset = stepper.settings, stepper.accelerator, loader.examples.split
    evaluator = Evaluator(
        accelerator, stepper.model, processor, stepper.optimizer, train_dataset, eval_dataset,
        settings.per_device_eval_batch_size, pretrained_fraction,
    )  # fmt: skip
    log = TrainLog(run, accelerator.is_main_process)
    return Monitor(settings, loader, stepper, log, display, evaluator, callbacks)
