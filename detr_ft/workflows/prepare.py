"""Prepare a run: check and split the data, then load the model and fit it to them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel

from detr_ft.data.box_frame import count_boxes
from detr_ft.data.images import open_image
from detr_ft.data.integrity.usable_images import InspectedSplit, inspect_splits, shorten
from detr_ft.data.pipeline.image_format import ImageFormat, with_longest_edge
from detr_ft.data.pipeline.sampling import repeat_factors
from detr_ft.data.schema import boxes_of_classes, class_names
from detr_ft.data.splits import train_and_validation
from detr_ft.errors import InputError
from detr_ft.models.build import build_model, square_processor
from detr_ft.models.families import check_trainable, family_of
from detr_ft.models.freeze import live_norms, set_trainable, trainable_counts
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import commit_of, load_config_and_processor, load_model
from detr_ft.models.lora import add_adapters
from detr_ft.models.metadata import write_labels, write_lora
from detr_ft.models.surgery import query_use, set_queries, truncate_decoder
from detr_ft.recipe.recipe import DataSection, Recipe

logger = logging.getLogger(__name__)

_QUERY_USE_IMAGES = 200
_NEW_MODEL_EDGE_PX = 800


@dataclass(frozen=True)
class Prepared:
    """Data and model of a run before its first step.

    `loaded` is the fraction of the model's weights that came from a checkpoint, `skipped` the number of images that can't be
    trained on, and `revision` the commit of a checkpoint on the Hub.
    """

    train: Dataset
    validation: Dataset
    model: PreTrainedModel
    processor: Any
    format: ImageFormat
    loaded: float
    skipped: int = 0
    revision: str | None = None


def prepare(recipe: Recipe, data: DatasetDict) -> Prepared:
    """Check and split the data, then load the model and fit it to them. Raises InputError.

    Of the checkpoint only the config files are read before the data are known to be usable.
    """
    if "train" not in data:
        raise InputError(f"the data have no train split, only {', '.join(data)}")
    if not len(data["train"]):
        raise InputError(f"{recipe.data.source}: the train split has no images. Give other data")
    names, synonyms = class_names(data["train"]), recipe.synonyms()
    start = recipe.model.checkpoint
    revision = commit_of(start, recipe.model.revision) if start else None
    recipe = recipe.pinned(revision)
    processor = _processor(recipe)
    format = ImageFormat.of(processor)
    train, validation, skipped = _split(recipe, data, format)
    model = _model(recipe, names)
    if start is not None:
        _fit(model, processor, recipe, names, synonyms, train)
    _warn_of_crowding(train, family_of(model).num_queries(model.config))
    if recipe.model.live_norms:
        live_norms(model)
    set_trainable(model, recipe.model.freeze)
    if recipe.model.lora is not None:
        lora = recipe.model.lora.model_dump()
        add_adapters(model, **lora, freeze=recipe.model.freeze)
        write_lora(model.config, lora)
    return Prepared(train, validation, model, processor, format, _loaded(recipe, model), skipped, revision)


def _processor(recipe: Recipe) -> Any:
    """Return the image processor of the run, at the recipe's size."""
    section, edge = recipe.model, recipe.data.longest_edge
    if section.checkpoint is None:
        return square_processor(edge or _NEW_MODEL_EDGE_PX)
    config, processor = load_config_and_processor(section.checkpoint, section.revision)
    check_trainable(section.checkpoint, config)
    return with_longest_edge(processor, edge)


def _split(recipe: Recipe, data: DatasetDict, format: ImageFormat) -> tuple[Dataset, Dataset, int]:
    """Inspect every image; return train and validation split and the number of images left out.

    Raises InputError.
    """
    section = recipe.data
    names = ["train"] if section.fold or "validation" not in data else ["train", "validation"]
    inspected = inspect_splits(data, names, format)
    _check_bad_images(inspected, section)
    train, validation = inspected["train"], inspected.get("validation")
    parts = train_and_validation(
        train.rows, validation and validation.rows, train.fingerprints,
        section.validation_fraction, recipe.split_seed, section.fold_of,
    )  # fmt: skip
    counts = count_boxes(parts[0])
    logger.info(
        "data: %d images to train, %d held out, %d classes; %s",
        *map(len, parts), len(class_names(parts[0])), counts,
    )  # fmt: skip
    if counts.trainable == 0:
        raise InputError(f"{section.source}: no image of the train split has a box that can be trained on")
    return *parts, sum(len(split.bad) for split in inspected.values())


def _model(recipe: Recipe, names: list[str]) -> PreTrainedModel:
    """Load the checkpoint, or build the architecture for these classes with random weights."""
    section = recipe.model
    torch.manual_seed(recipe.train.seed)
    if section.checkpoint is not None:
        return load_model(section.checkpoint, section.revision, section.pickled)[0]
    assert section.architecture is not None, "a recipe has a checkpoint or an architecture"
    model, _ = build_model(
        section.architecture, names, recipe.data.longest_edge or _NEW_MODEL_EDGE_PX, section.backbone
    )
    backbone = f", backbone from {section.backbone}" if section.backbone else ""
    logger.info("model: random weights%s, %s parameters", backbone, f"{model.num_parameters():,}")
    return model


def _fit(
    model: PreTrainedModel,
    processor: Any,
    recipe: Recipe,
    names: list[str],
    synonyms: Mapping[str, str],
    train: Dataset,
) -> None:
    """Reduce a checkpoint to the recipe's queries and layers, and give it the classes of the data."""
    section, seed = recipe.model, recipe.train.seed
    if section.decoder_layers is not None:
        truncate_decoder(model, section.decoder_layers)
    before = family_of(model).num_queries(model.config)
    if section.num_queries not in (None, before):
        sample = train.select(range(min(_QUERY_USE_IMAGES, len(train))))
        images = (open_image(row["image"]) for row in sample.with_format(None).select_columns(["image"]))
        set_queries(model, section.num_queries, query_use(model, processor, images), seed)
        logger.info("queries: %d of the checkpoint's %d, by use in %d images", section.num_queries, before, len(sample))
    labels = fit_labels(model, names, boxes_of_classes(train), synonyms, seed)
    write_labels(model.config, labels.reused, labels.new)
    reused = [name if name == theirs else f"{name} from {theirs}" for name, theirs in labels.reused.items()]
    logger.info(
        "model: %s, all weights loaded; %d of %d classes known to it (%s), the others start from their mean",
        section.checkpoint, len(reused), len(names), ", ".join(reused) or "none",
    )  # fmt: skip


def _loaded(recipe: Recipe, model: PreTrainedModel) -> float:
    """Return the fraction of weights that are not random. A checkpoint is loaded whole or refused."""
    if recipe.model.architecture is None:
        return 1.0
    if recipe.model.backbone is None:
        return 0.0
    counts = trainable_counts(model)
    of_backbone = sum(total for part, (_, total) in counts.items() if part.startswith("backbone"))
    return of_backbone / sum(total for _, total in counts.values())


def _check_bad_images(inspected: Mapping[str, InspectedSplit], section: DataSection) -> None:
    """Raise InputError with the unusable images, unless the recipe skips them and they are few."""
    reasons = [reason for split in inspected.values() for reason in split.bad]
    if reasons and section.bad_images == "raise":
        worst = max(len(split.bad) / (len(split.bad) + len(split.rows)) for split in inspected.values() if split.bad)
        allowed = f" data.max_bad_fraction={math.ceil(100 * worst) / 100:g}" if worst > section.max_bad_fraction else ""
        raise InputError(
            [
                *shorten(reasons),
                f"{len(reasons)} image{'s' if len(reasons) > 1 else ''} can't be trained on. Repair them, or train without "
                f"them with data.bad_images=skip{allowed} (at most data.max_bad_fraction of a split, now "
                f"{section.max_bad_fraction:g})",
            ]
        )
    for name, split in inspected.items():
        total = len(split.bad) + len(split.rows)
        if len(split.bad) > section.max_bad_fraction * total:
            raise InputError(
                [
                    *shorten(split.bad),
                    f"{len(split.bad)} of {total} images of the {name} split can't be trained on, more than "
                    f"data.max_bad_fraction allows ({section.max_bad_fraction:g})",
                ]
            )
    for reason in reasons:
        logger.warning("skipped: %s", reason)


def _warn_of_crowding(train: Dataset, queries: int) -> None:
    beyond = [len(objects["category"]) - queries for objects in train["objects"] if len(objects["category"]) > queries]
    if beyond:
        logger.warning(
            "the model has %d queries, and %d images have more objects: %d objects can't be matched or detected. "
            "Raise model.num_queries",
            queries, len(beyond), sum(beyond),
        )  # fmt: skip


def repeats(train: Dataset, threshold: float | None) -> list[float] | None:
    """Return how often each image occurs in an epoch, and log it; None without a threshold."""
    if threshold is None:
        return None
    factors = repeat_factors(train, threshold)
    logger.info(
        "rare classes: %d of %d images occur more than once an epoch, the rarest %.1f times",
        sum(factor > 1 for factor in factors), len(factors), max(factors),
    )  # fmt: skip
    return factors
