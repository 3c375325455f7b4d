"""Write a complete, commented recipe for a data set, with a reason for each choice."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
import yaml
from datasets import Dataset
from jinja2 import Environment, PackageLoader, StrictUndefined

from detr_ft.criterion import detr_criterion
from detr_ft.criterion.serialization import describe
from detr_ft.data.box_frame import count_boxes
from detr_ft.data.doctor.advice import advise, enough_queries
from detr_ft.data.doctor.statistics import SplitStatistics, statistics_of
from detr_ft.data.pipeline.sampling import balanced_weights
from detr_ft.data.schema import class_names
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError
from detr_ft.models.families import Family
from detr_ft.models.families.detr import DETR
from detr_ft.models.load import local_family, num_queries_of
from detr_ft.recipe.load import build_values
from detr_ft.recipe.recipe import Recipe
from detr_ft.utils.arguments import model_text
from detr_ft.utils.files import check_new_file, writing
from detr_ft.utils.yaml import parse_yaml
from detr_ft.workflows.splits import DataLike, DataOptions, GivenData, ModelLike, PathLike, check_not_empty, read_data

_SMALL = "embedded:small"
# Memory of a step of DETR-ResNet-50 for an image of 800 x 800, without the model: tests/benchmarks/step_memory.py.
_GIB_PER_IMAGE = 0.41
_MIN_IMAGES_TO_TRAIN_BACKBONE, _MIN_IMAGES_FOR_DETR_AUGMENTATION = 100, 1_000
_MAX_BATCH_SIZE = 16
_MAX_EDGE_OF_SMALL_PX, _EDGE_OF_CHECKPOINTS_PX = 512, 800
_PLAIN = re.compile(r"[A-Za-z][\w./:-]*[\w/]")  # a text that YAML reads without quotes
# Characters that a YAML file must not contain, or that end a line.
_UNPRINTABLE = re.compile("[^\t\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class NewRecipe:
    """A recipe for a data set: its text with comments, its values, and its file, if any."""

    text: str
    recipe: Recipe
    path: Path | None


def new_recipe(
    data: DataLike,
    out: PathLike | None = None,
    *,
    checkpoint: ModelLike | None = None,
    box_format: str | None = None,
    images: PathLike | None = None,
    unlabeled: UnlabeledPolicy | None = None,
) -> NewRecipe:
    """Write a recipe that fits a data set and this machine's hardware.

    `out` is a new file; without it nothing is written. `checkpoint` is chosen by the hardware if it is None.
    `box_format` is that of the data's boxes, by default as recognized; `images` and `unlabeled` are as for `load_data`.
    Raises InputError.
    """
    path = None if out is None else Path(out)
    if path is not None:
        check_new_file(path, "Choose another file with out (-o).")
    options = DataOptions(box_format, images, unlabeled)
    given = read_data(data, options)
    if "train" not in given.splits:
        raise InputError(f"{given.source}: there is no train split, only {', '.join(given.splits)}")
    check_not_empty({"train": given.splits["train"]})
    recorded = options.over(given.options)
    recorded = replace(recorded, unlabeled=recorded.unlabeled or _policy(given))
    text = _text(given, path, None if checkpoint is None else model_text(checkpoint, "checkpoint"), recorded)
    values = parse_yaml(text, "template")
    assert isinstance(values, dict), "the template is a mapping"
    recipe = build_values(values).recipe
    if path is not None:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        recipe = recipe.in_folder(path.parent)
    return NewRecipe(text, recipe, path)


def _policy(given: GivenData) -> UnlabeledPolicy | None:
    """Return `background` for data with unlabeled images, which are read as images without objects."""
    return "background" if any(problem.kind == "unlabeled" for problem in given.problems) else None


@dataclass(frozen=True)
class _Start:
    """A checkpoint, and the settings that go with it."""

    checkpoint: str
    freeze: str
    why_freeze: str
    rate: str
    backbone_rate: str
    why_backbone_rate: str
    steps: int
    warmup: int
    clip: float

    @property
    def revision(self) -> str | None:
        """The revision of the authors' checkpoints whose backbone needs no timm."""
        return "no_timm" if self.checkpoint.startswith("facebook/detr-") else None


def _text(given: GivenData, out: Path | None, checkpoint: str | None, options: DataOptions) -> str:
    train, gpu = given.splits["train"], torch.cuda.is_available()
    counts = count_boxes(train)
    statistics = {split: statistics_of(rows) for split, rows in given.splits.items()}
    advice = {item.topic: item for item in advise(statistics)}
    checkpoint = checkpoint or ("facebook/detr-resnet-50" if gpu else _SMALL)
    family = local_family(checkpoint) or DETR
    start = _start(checkpoint, len(train), family)
    queries = num_queries_of(start.checkpoint, start.revision)
    if queries is not None:
        advice["num_queries"] = enough_queries(statistics, queries)
    more_queries = (
        advice["num_queries"].value if queries is not None and advice["num_queries"].value != queries else None
    )
    edge, edge_reason = _edge(start, statistics["train"], advice["longest_edge"].value or 800)
    batch, batch_reason = _batch(start, edge, gpu)
    epochs = max(10, min(300, round(start.steps * batch / len(train))))
    topics = [
        *([] if more_queries else ["num_queries"]),
        *([] if start.checkpoint == _SMALL else ["expectation"]),
        "few boxes",
        "rare classes",
    ]
    light, rare = len(train) < _MIN_IMAGES_FOR_DETR_AUGMENTATION, "rare classes" in advice
    environment = Environment(
        loader=PackageLoader("detr_ft.recipe", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    environment.filters["plain"] = lambda text: text if _PLAIN.fullmatch(text) else _quoted(text)
    environment.filters["comment"] = _comment
    return environment.get_template("template.yaml.jinja").render(
        source=given.source,
        images=len(train),
        boxes=counts.trainable,
        unused=counts.unused,
        names=class_names(train),
        out=out or "RECIPE",
        stem=out.stem if out else "recipe",
        advice=[advice[topic].text for topic in topics if topic in advice],
        start=start,
        criterion=_criterion(family),
        num_queries=more_queries,
        most_objects=int(max(split.objects.most for split in statistics.values())),
        options=options,
        has_validation="validation" in given.splits,
        edge=edge,
        edge_reason=edge_reason,
        augment="light" if light else "detr",
        augment_reason="flips, mild crops and colors, for a small data set" if light else "as in the paper",
        repeat_threshold=_repeat_threshold(statistics["train"]) if rare else None,
        class_weights=_class_weights(train) if rare else None,
        epochs=epochs,
        steps=epochs * math.ceil(len(train) / batch),
        batch=batch,
        batch_reason=batch_reason,
        bf16=str(gpu).lower(),
        workers=min(8, os.cpu_count() or 1) if gpu else 0,
    )


def _quoted(text: str | os.PathLike[str]) -> str:
    """Return a text in double quotes: JSON's are YAML's too, with backslashes and quotes escaped."""
    return _escaped(json.dumps(os.fspath(text), ensure_ascii=False))


def _comment(text: str | os.PathLike[str]) -> str:
    """Return a text as one line for a comment."""
    return _escaped(" ".join(os.fspath(text).splitlines()))


def _escaped(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _start(checkpoint: str, images: int, family: Family) -> _Start:
    if checkpoint == _SMALL:
        why = "nothing: the checkpoint was trained on drawings only, so photos need all layers"
        return _Start(checkpoint, "", why, "4.0e-4", "4.0e-4", "same as learning_rate", 1500, 50, 0.5)
    freeze, why = ", ".join(family.freeze), "not trained, as in the paper"
    backbone_rate, why_rate = "1.0e-5", "the backbone is pretrained, so its rate is lower"
    if images < _MIN_IMAGES_TO_TRAIN_BACKBONE:
        freeze, why = "backbone", f"fewer than {_MIN_IMAGES_TO_TRAIN_BACKBONE} images are too few to train the backbone"
        backbone_rate, why_rate = "null", "the backbone is frozen"
    return _Start(checkpoint, freeze, why, "1.0e-4", backbone_rate, why_rate, 6000, 200, 0.1)


def _criterion(family: Family) -> str:
    """Return the criterion of a family as YAML; empty for DETR's, which the template has."""
    criterion = family.default_criterion()
    if criterion == detr_criterion():
        return ""
    return yaml.safe_dump({"criterion": describe(criterion)}, sort_keys=False)


def _edge(start: _Start, statistics: SplitStatistics, advised: int) -> tuple[int, str]:
    """Return the longest edge in pixels, and the reason.

    It is the doctor's advice, unless the checkpoint was trained at a larger size, or is the small one for CPUs.
    """
    small = start.checkpoint == _SMALL
    edge = min(advised, _MAX_EDGE_OF_SMALL_PX) if small else max(advised, _EDGE_OF_CHECKPOINTS_PX)
    reason = "the doctor's advice: a larger size detects smaller objects and takes longer"
    if edge < advised:
        reason = f"the doctor advises {advised}, which would take a CPU long"
    elif edge > advised:
        reason = f"the size that the checkpoint was trained with; the doctor advises {advised} or more"
    shorter = statistics.shorter_share.tenth
    boxes = f"; nine boxes in ten then have a shorter side of {shorter * edge:.0f} pixels or more" if shorter else ""
    return edge, reason + boxes


def _batch(start: _Start, edge: int, gpu: bool) -> tuple[int, str]:
    """Return the batch size and the reason: a power of two that fits half of the free memory, at most 16."""
    if start.checkpoint == _SMALL:
        return _MAX_BATCH_SIZE, "the small model fits in memory at this batch size"
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    image = _GIB_PER_IMAGE * (edge / 800) ** 2
    fitting = max(1, int(free / 2**30 / 2 / image))
    size = min(_MAX_BATCH_SIZE, 2 ** (fitting.bit_length() - 1))
    return size, f"an image takes about {image:.1f} GiB at this size, of {free / 2**30:.0f} free"


def _repeat_threshold(statistics: SplitStatistics) -> str:
    counts = sorted(count for count in statistics.images_per_class.values() if count)
    return f"{counts[len(counts) // 2] / statistics.images:.2g}"


def _class_weights(train: Dataset) -> list[str]:
    return [f"{weight:.2g}" for weight in balanced_weights(train)]
