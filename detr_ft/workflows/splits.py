"""The images that a verb works on: given data, or those that a run did not train on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from datasets import ClassLabel, Dataset, DatasetDict, Image

from detr_ft.data.doctor.statistics import boxes_of, other_format
from detr_ft.data.integrity.usable_images import shorten, with_true_sizes
from detr_ft.data.load import specification_of
from detr_ft.data.schema import detection_features
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.load import load_source_data, read_category_ids
from detr_ft.data.sources.problems import Problem, num_unread, summarize
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError
from detr_ft.models.locate import resolve
from detr_ft.recipe.load import read_recipe
from detr_ft.recipe.recipe import IN_MEMORY, DataSection, Recipe
from detr_ft.run_directory import CHECKPOINTS, HELD_OUT, RECIPE
from detr_ft.utils.files import read_json

# A specification as `load_data` takes it, a data set in the schema, or a train and a validation split.
DataLike: TypeAlias = str | os.PathLike[str] | Dataset | DatasetDict | tuple[Dataset, Dataset]
# A run, a checkpoint's folder, `owner/name` on the Hub, or `embedded:NAME`.
ModelLike: TypeAlias = str | os.PathLike[str]
RecipeLike: TypeAlias = Recipe | str | os.PathLike[str]
PathLike: TypeAlias = str | os.PathLike[str]


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataOptions:
    """The options for reading the files of a data set, as in a recipe's `data`; None is the default."""

    box_format: str | None = None
    images: PathLike | None = None
    unlabeled: UnlabeledPolicy | None = None

    def given(self) -> dict[str, Any]:
        """Return the options that are not the default."""
        return {option.name: value for option in fields(self) if (value := getattr(self, option.name)) is not None}

    def over(self, recorded: Mapping[str, Any]) -> DataOptions:
        """Return these options, with recorded ones where these are the default."""
        known = {option.name: recorded.get(option.name) for option in fields(self)}
        return DataOptions(**(known | self.given()))


@dataclass(frozen=True)
class GivenData:
    """A data set, the source in its recipe, the classes of COCO's category ids, and problems of its files.

    `annotated` are the image files with annotations that are in no split.
    `options` are the other values of the recipe with which data given as objects were read.
    """

    source: str
    splits: DatasetDict
    category_ids: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    annotated: frozenset[Path] = frozenset()


def read_data(data: DataLike, options: DataOptions = DataOptions()) -> GivenData:
    """Read a data set from its specification, or check that objects are in the schema.

    Raises InputError, also if an object can't be read, and for objects with options, which are for files.
    """
    given = read_as_is(data, options)
    SourceData(given.splits, given.category_ids, given.problems).checked()
    _check_box_format(given.source, given.splits, options.over(given.options))
    return given


def read_as_is(data: DataLike, options: DataOptions = DataOptions()) -> GivenData:
    """Read a data set as `read_data` does, as far as it can be read."""
    if isinstance(data, str | os.PathLike):
        source = os.fspath(data)
        loaded = load_source_data(source, **options.given())
        return GivenData(source, loaded.splits, loaded.category_ids, loaded.problems, annotated=loaded.annotated)
    objects = _as_splits(data)
    if options.given():
        raise InputError(
            f"{', '.join(options.given())}: would have no effect, since the data are objects that were read already. "
            "Leave it out, or give it to load_data"
        )
    splits = DatasetDict({name: _in_schema(name, rows) for name, rows in objects.items()})
    known = specification_of(objects)
    if known is not None:
        recorded = {key: value for key, value in known.options.items() if key in DataSection.model_fields}
        return GivenData(known.source, splits, options=recorded)
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    return GivenData(f"{IN_MEMORY}{counts}", splits)


def _as_splits(data: object) -> DatasetDict:
    """Return data that were given as objects as splits. Raises InputError for other objects."""
    if isinstance(data, DatasetDict) and data:
        return data
    if isinstance(data, Dataset):
        return DatasetDict(train=data)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(split, Dataset) for split in data):
        return DatasetDict(train=data[0], validation=data[1])
    kind = "an empty DatasetDict" if isinstance(data, DatasetDict) else type(data).__name__
    raise InputError(
        f"data: must be a specification such as coco:PATH, a Dataset, a DatasetDict, or a train and a validation split, got {kind}"
    )


def read_source(section: DataSection, options: DataOptions = DataOptions()) -> DatasetDict:
    """Read the data of a recipe, with its options where none are given.

    Raises InputError, also for data that were given as objects.
    """
    if section.in_memory:
        raise InputError(
            f"data.source: {section.source}: these data were given to Python as objects and can't be read again. "
            "Give data (--data)"
        )
    options = options.over(dict(section))
    loaded = load_source_data(section.source, **options.given())
    splits = loaded.checked() if section.bad_images == "raise" else _without_defective_images(loaded, section)
    _check_box_format(section.source, splits, options)
    return splits


def _check_box_format(source: str, splits: Mapping[str, Dataset], options: DataOptions) -> None:
    """Raise InputError if the boxes of a split look like another format, unless the user stated one."""
    if options.box_format is not None:
        return
    formats = {name: other_format(boxes_of(rows)) for name, rows in splits.items()}
    problems = [
        f"{source}: the boxes of {name} are not x, y, width, height in pixels but likely {format}"
        for name, format in formats.items()
        if format is not None
    ]
    if problems:
        raise InputError([*problems, "Convert them: detr-ft doctor DATA --fix COPY writes a copy with boxes in pixels"])


def _without_defective_images(loaded: SourceData, section: DataSection) -> DatasetDict:
    """Return the splits without images whose objects can't all be read.

    Raises InputError if these are too many.
    """
    for line in summarize([one.message for one in loaded.problems if one.row is None or not one.refused]):
        logger.warning("%s", line)
    defective = loaded.defective_rows()
    for split, reasons in defective.items():
        total = len(loaded.splits[split])
        if len(reasons) > section.max_bad_fraction * total:
            raise InputError(
                [
                    *shorten(list(reasons.values())),
                    f"{len(reasons)} of {total} images of the {split} split have objects that can't be read, more than "
                    f"data.max_bad_fraction allows ({section.max_bad_fraction:g})",
                ]
            )
        for reason in reasons.values():
            logger.warning("skipped: %s", reason)
    usable = loaded.without_rows(defective).splits
    images, objects = _counts(loaded.splits)
    used, used_objects = _counts(usable)
    objects += num_unread(loaded.problems)
    logger.info(
        "%d images with %d objects in the files = %d images with %d read + %d images and %d objects left out",
        images, objects, used, used_objects, images - used, objects - used_objects,
    )  # fmt: skip
    return usable


def _counts(splits: DatasetDict) -> tuple[int, int]:
    """Return the numbers of images and of objects."""
    objects = (row["objects"] for rows in splits.values() for row in rows.with_format(None).select_columns(["objects"]))
    return sum(map(len, splits.values())), sum(len(one["bbox"]) for one in objects)


def category_ids(source: str) -> Mapping[int, str]:
    """Return the class of each category id of a COCO data set; empty for other data."""
    return {} if source.startswith(IN_MEMORY) else read_category_ids(source)


def split_of(model: str, data: DataLike | None, split: str | None, options: DataOptions = DataOptions()) -> Dataset:
    """Return a split of the data, or without data the validation images of a model's run.

    Raises InputError.
    """
    if data is not None:
        return choose_split(read_data(data, options).splits, split)
    recipe = recipe_of(Path(model))
    if recipe is None:
        resolve(model)
        raise InputError(f"{model} has no {RECIPE} that names its data. Give data (--data)")
    splits = read_source(recipe.data, options)
    if split in (None, "validation"):
        return _held_out(run_of(Path(model)), recipe, splits)
    return choose_split(splits, split)


def choose_split(splits: DatasetDict, split: str | None) -> Dataset:
    """Return a split, by default the first of validation, test and train, with boxes of the actual images.

    Raises InputError.
    """
    chosen = split or next((name for name in ("validation", "test", "train") if name in splits), "")
    if chosen not in splits:
        raise InputError(f"the data have no split {chosen!r}. Choose one of {', '.join(splits)} with split (--split)")
    check_not_empty({chosen: splits[chosen]})
    return with_true_sizes(splits, chosen)


def check_not_empty(splits: Mapping[str, Dataset]) -> None:
    """Raise InputError with every split that has no images."""
    empty = [name for name, rows in splits.items() if not len(rows)]
    if empty:
        raise InputError([f"data: the {name} split has no images. Leave it out, or give other data" for name in empty])


def recipe_of(run: Path) -> Recipe | None:
    """Return the recipe of a run directory or of one of its checkpoints, None if there is none."""
    file = run_of(run) / RECIPE
    return read_recipe(file) if file.is_file() else None


def image_names(split: Dataset) -> list[tuple[int, str]]:
    """Return the id and file name of each image; an id alone may be only a position in a list."""
    images = split.with_format(None).select_columns(["image", "image_id"])
    return [(row["image_id"], Path(row["image"]["path"] or "").name) for row in images]


def _in_schema(name: str, rows: Dataset) -> Dataset:
    """Return a split whose images are not decoded. Raises InputError if columns of the schema are missing."""
    schema = detection_features([])
    missing = [column for column in schema if column not in rows.features]
    objects = rows.features.get("objects", {})
    missing += [f"objects.{key}" for key in schema["objects"] if key not in objects]
    category = getattr(objects.get("category"), "feature", None) if isinstance(objects, dict) else None
    if not missing and not isinstance(category, ClassLabel):
        missing.append("objects.category as a list of ClassLabel")
    if missing:
        raise InputError(
            f"data: the {name} split has no {', '.join(missing)}. "
            "Read it with detr_ft.load_data, for example after save_to_disk as saved:FOLDER"
        )
    return rows.cast_column("image", Image(decode=False)) if rows.features["image"].decode else rows


def _held_out(run: Path, recipe: Recipe, splits: DatasetDict) -> Dataset:
    """Return the images that a run recorded as not trained on, or the data's own validation split."""
    file = run / HELD_OUT
    own = "validation" in splits and not recipe.data.fold
    if not file.is_file():
        if own:
            return with_true_sizes(splits, "validation")
        raise InputError(
            f"{file} is missing: it lists the images that the run did not train on. Give data (--data) and split (--split)"
        )
    wanted = _read_names(file)
    name = "validation" if own else "train"
    rows = [row for row, image in enumerate(image_names(splits[name])) if image in wanted]
    if len(rows) != len(wanted):
        raise InputError(
            f"{run}: {recipe.data.source} has only {len(rows)} of the {len(wanted)} images that the run did not train on. "
            "Evaluate on other data with data (--data)"
        )
    return with_true_sizes(splits, name, rows)


def _read_names(file: Path) -> set[tuple[Any, ...]]:
    """Return the pairs of `image_names` in a file. Raises InputError."""
    remedy = "Restore it from a backup, or give data (--data) and split (--split)"
    rows = read_json(file, remedy)
    kinds = (
        [[type(value) for value in row] for row in rows if isinstance(row, list)] if isinstance(rows, list) else None
    )
    if not kinds or len(kinds) < len(rows) or any(kind != [int, str] for kind in kinds):
        raise InputError(f"{file}: must be a list of pairs, the id and the file name of an image. {remedy}")
    return set(map(tuple, rows))


def run_of(model: Path) -> Path:
    """Return the run directory of a run or of one of its checkpoints."""
    return model.parents[1] if model.parent.name == CHECKPOINTS else model
