"""What a run needs before its first step: data that can be read, and a model fitted to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict

from detr_ft.data import class_names
from detr_ft.data.box_frame import count_boxes
from detr_ft.data.images import open_image
from detr_ft.data.integrity.usable_images import Inspected, first_of, inspect
from detr_ft.data.pipeline.sampling import repeat_factors
from detr_ft.data.pipeline.transforms import ImageFormat
from detr_ft.data.schema import boxes_of_classes
from detr_ft.data.splits import train_and_validation
from detr_ft.errors import InputError
from detr_ft.models.build import build_model
from detr_ft.models.checkpoint_source import commit_of
from detr_ft.models.families.family import Detr
from detr_ft.models.freeze import live_norms, set_trainable, trainable_counts
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.models.lora import add_adapters
from detr_ft.models.surgery import keep_decoder_layers, query_use, set_queries
from detr_ft.recipe import DataSection, Recipe

logger = logging.getLogger(__name__)

_SHOWN = 200  # images, in which the use of queries is measured


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs before its first step."""

    train: Dataset
    validation: Dataset
    model: Detr
    processor: Any
    loaded: float  # the share of the model's weights that came from a checkpoint
    skipped: int = 0  # images that can't be trained on
    revision: str | None = None  # the commit that a checkpoint of the Hub was taken from


def prepare(recipe: Recipe, data: DatasetDict) -> Prepared:
    """Load the model and fit it to the data, saying on the log what was done. Raises InputError."""
    if "train" not in data:
        raise InputError(f"the data has no train split, only {', '.join(data)}")
    names, synonyms = class_names(data["train"]), recipe.synonyms()
    start = recipe.model.checkpoint
    revision = commit_of(start, recipe.model.revision) if start else None
    model, processor = _model(recipe.pinned(revision), names)
    train, validation, skipped = _splits(recipe.data, _split_seed(recipe), data, ImageFormat.of(processor))
    counts = count_boxes(train)
    logger.info(
        "data: %d images to train, %d held out, %d classes; %s", len(train), len(validation), len(names), counts
    )
    if counts.kept == 0:
        raise InputError(f"{recipe.data.source}: no image of the train split has a box that can be trained on")
    if recipe.model.checkpoint is not None:
        _fit(model, processor, recipe, names, synonyms, train)
    _warn_of_crowding(train, model.config.num_queries)
    if recipe.model.live_norms:
        live_norms(model)
    set_trainable(model, recipe.model.freeze)
    if recipe.model.lora is not None:
        lora = recipe.model.lora.model_dump()
        add_adapters(model, **lora, freeze=recipe.model.freeze)
        model.config.detr_ft |= {"lora": lora}
    return Prepared(train, validation, model, processor, _loaded(recipe, model), skipped, revision)


def _loaded(recipe: Recipe, model: Detr) -> float:
    """The share of weights that are no random ones. A checkpoint is loaded whole, or refused."""
    if recipe.model.architecture is None:
        return 1.0
    if recipe.model.backbone is None:
        return 0.0
    counts = trainable_counts(model)
    of_backbone = sum(total for part, (_, total) in counts.items() if part.startswith("backbone"))
    return of_backbone / sum(total for _, total in counts.values())


def _model(recipe: Recipe, names: list[str]) -> tuple[Detr, Any]:
    """The model for these classes, and its image processor, at the recipe's size."""
    section, edge = recipe.model, recipe.data.longest_edge
    torch.manual_seed(recipe.train.seed)
    if section.architecture is not None:
        model, processor = build_model(section.architecture, names, edge or 800, section.backbone)
        logger.info(
            "model: random weights%s, %s parameters",
            f", backbone from {section.backbone}" if section.backbone else "",
            f"{model.num_parameters():,}",
        )
        return model, processor
    model, processor = load_model(str(section.checkpoint), section.revision, section.pickled)
    if edge is not None:
        processor.size = {"max_height": edge, "max_width": edge}
        if processor.pad_size is not None:
            processor.pad_size = {"height": edge, "width": edge}
    return model, processor


def _fit(
    model: Detr,
    processor: Any,
    recipe: Recipe,
    names: list[str],
    synonyms: Mapping[str, str],
    train: Dataset,
) -> None:
    """Cut a checkpoint to the recipe's queries and layers, and give it the classes of the data, saying what was done."""
    section, seed = recipe.model, recipe.train.seed
    if section.decoder_layers is not None:
        keep_decoder_layers(model, section.decoder_layers)
    if section.num_queries not in (None, model.config.num_queries):
        before, shown = model.config.num_queries, train.select(range(min(_SHOWN, len(train))))
        images = (open_image(row["image"]) for row in shown.with_format(None).select_columns(["image"]))
        set_queries(model, section.num_queries, query_use(model, processor, images), seed)
        logger.info("queries: %d of the checkpoint's %d, by use in %d images", section.num_queries, before, len(shown))
    labels = fit_labels(model, names, boxes_of_classes(train), synonyms, seed)
    model.config.detr_ft = {"labels": labels.as_json()}
    reused = [name if name == theirs else f"{name} from {theirs}" for name, theirs in labels.reused.items()]
    logger.info(
        "model: %s, all weights loaded; %d of %d classes known to it (%s), the others start from their mean",
        section.checkpoint, len(reused), len(names), ", ".join(reused) or "none",
    )  # fmt: skip


def _split_seed(recipe: Recipe) -> int:
    return recipe.train.seed if recipe.data.split_seed is None else recipe.data.split_seed


def _splits(section: DataSection, seed: int, data: DatasetDict, form: ImageFormat) -> tuple[Dataset, Dataset, int]:
    """What is trained on and what is held out, once every image of them was looked at. Raises InputError."""
    taken = ["train"] if section.fold or "validation" not in data else ["train", "validation"]
    found = inspect(data, taken, form)
    _refuse_bad_images(found, section)
    train, validation = found["train"], found.get("validation")
    parts = train_and_validation(
        train.rows, validation and validation.rows, train.fingerprints,
        section.validation_fraction, seed, section.fold_of,
    )  # fmt: skip
    return *parts, sum(len(one.bad) for one in found.values())


def _refuse_bad_images(found: Mapping[str, Inspected], section: DataSection) -> None:
    """Raise InputError with the images that can't be trained on, unless the recipe says to skip them and they are few."""
    reasons = [why for one in found.values() for why in one.bad]
    if reasons and section.bad_images == "raise":
        worst = max(len(one.bad) / (len(one.bad) + len(one.rows)) for one in found.values() if one.bad)
        allowed = f" data.max_bad_fraction={math.ceil(100 * worst) / 100:g}" if worst > section.max_bad_fraction else ""
        what = (
            f"{len(reasons)} image{'s' if len(reasons) > 1 else ''} can't be trained on: mend them, or data.bad_images=skip{allowed} "
            f"goes on without them, up to data.max_bad_fraction of a split ({section.max_bad_fraction:g} as it is set)"
        )
        raise InputError([*first_of(reasons), what])
    for split, one in found.items():
        total = len(one.bad) + len(one.rows)
        if len(one.bad) > section.max_bad_fraction * total:
            what = f"{len(one.bad)} of {total} images of the {split} split can't be trained on, more than "
            raise InputError(
                [*first_of(one.bad), what + f"data.max_bad_fraction allows ({section.max_bad_fraction:g})"]
            )
    for reason in reasons:
        logger.warning("skipped: %s", reason)


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
