"""What a run needs before its first step: data that can be read, and a model fitted to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import DetrForObjectDetection

from detr_ft.data import class_names
from detr_ft.data.batches import repeat_factors
from detr_ft.data.frame import count_boxes
from detr_ft.data.readable import bad_images, without_bad_images
from detr_ft.data.splits import train_and_validation
from detr_ft.errors import UserError
from detr_ft.models.freeze import live_norms, set_trainable, trainable_counts
from detr_ft.models.labels import fit_labels
from detr_ft.models.load import build_model, load_model
from detr_ft.recipe import DataSection, Recipe

logger = logging.getLogger(__name__)

HELD_OUT = "held-out.json"  # in a run directory: which images it did not train on
_SHOWN = 10  # images that a message names


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs before its first step."""

    train: Dataset
    validation: Dataset
    model: DetrForObjectDetection
    processor: Any


def prepare(recipe: Recipe, data: DatasetDict) -> Prepared:
    """Load the model and fit it to the data, saying on the log what was done. Raises UserError."""
    train, validation = train_and_validation(
        data, recipe.data.validation_fraction, recipe.train.seed, recipe.data.fold_of
    )
    train, validation = _readable((train, validation), recipe.data)
    names = class_names(train)
    counts = count_boxes(train)
    logger.info(
        "data: %d images to train, %d held out, %d classes; %s", len(train), len(validation), len(names), counts
    )
    if counts.kept == 0:
        raise UserError(f"{recipe.data.source}: no image of the train split has a box that can be trained on")
    section = recipe.model
    torch.manual_seed(recipe.train.seed)
    if section.architecture is not None:
        model, processor = build_model(section.architecture, names, recipe.data.longest_edge or 800, section.backbone)
        logger.info(
            "model: random weights%s, %s parameters",
            f", backbone from {section.backbone}" if section.backbone else "",
            f"{model.num_parameters():,}",
        )
    else:
        model, processor = load_model(str(section.checkpoint), section.revision)
        known = fit_labels(model, names, recipe.train.seed)
        logger.info(
            "model: %s, all weights loaded; %d of %d classes known to it (%s), the others start from their mean",
            section.checkpoint, len(known), len(names), ", ".join(known) or "none",
        )  # fmt: skip
        if recipe.data.longest_edge is not None:
            edge = recipe.data.longest_edge
            processor.size = {"max_height": edge, "max_width": edge}
            if processor.pad_size is not None:
                processor.pad_size = {"height": edge, "width": edge}
    _warn_of_crowding(train, model.config.num_queries)
    if section.live_norms:
        live_norms(model)
    set_trainable(model, section.freeze)
    table = ", ".join(
        f"{part} {training:,} of {total:,}" for part, (training, total) in trainable_counts(model).items()
    )
    logger.info("parameters that train: %s", table)
    return Prepared(train, validation, model, processor)


def _readable(splits: tuple[Dataset, Dataset], section: DataSection) -> list[Dataset]:
    """The splits, or what of them can be read where the recipe says to skip the rest. Raises UserError with what can't."""
    found = [bad_images(split) for split in splits]
    reasons = [one.why for bad in found for one in bad]
    if reasons and section.bad_images == "raise":
        more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        what = f"{len(reasons)} images can't be read: mend them, or data.bad_images=skip goes on without them"
        raise UserError([*reasons[:_SHOWN], *more, what])
    readable = [
        without_bad_images(split, bad, section.max_bad_fraction) for split, bad in zip(splits, found, strict=True)
    ]
    for reason in reasons:
        logger.warning("skipped: %s", reason)
    return readable


def _warn_of_crowding(train: Dataset, queries: int) -> None:
    beyond = [len(objects["category"]) - queries for objects in train["objects"] if len(objects["category"]) > queries]
    if beyond:
        logger.warning(
            "the model has %d queries, and %d images hold more objects: %d objects can't be matched, and never be found",
            queries, len(beyond), sum(beyond),
        )  # fmt: skip


def names_of(split: Dataset) -> list[tuple[int, str]]:
    """Each image's id and the name of its file, empty where it has none: an id alone may be no more than a place in a list."""
    images = split.with_format(None).select_columns(["image", "image_id"])
    return [(row["image_id"], Path(row["image"]["path"] or "").name) for row in images]


def mixing_epochs(recipe: Recipe) -> int:
    """How many epochs images are mixed in."""
    asked = recipe.data.mixing_epochs
    return round(0.75 * recipe.train.num_train_epochs) if asked is None else asked


def repeats(train: Dataset, threshold: float | None) -> list[float] | None:
    """How often each image comes in an epoch, said on the log; nothing without a threshold."""
    if threshold is None:
        return None
    factors = repeat_factors(train, threshold)
    logger.info(
        "rare classes: %d of %d images come more than once an epoch, the rarest %.1f times",
        sum(factor > 1 for factor in factors), len(factors), max(factors),
    )  # fmt: skip
    return factors
