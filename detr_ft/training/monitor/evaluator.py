"""The evaluations of a run: COCO metrics, changes of the matching, remarks and a diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from accelerate import Accelerator
from datasets import Dataset
from torch.optim import Optimizer

from detr_ft.criterion import SetCriterion
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.models.families import family_of
from detr_ft.models.predict import detect_split
from detr_ft.structures import Detections
from detr_ft.training.monitor.diagnosis import MAP_OF_NOTHING, History, diagnose, measure_overlaps, remarks
from detr_ft.training.monitor.matching import FailuresOf, MatchingSample
from detr_ft.training.monitor.training_log import Row, TrainLog
from detr_ft.utils.collectives import gather_objects


class Evaluation(NamedTuple):
    """COCO metrics of a split, and the detections of each image in its order; both empty without a split."""

    metrics: dict[str, Any]
    detections: list[Detections]


@dataclass
class Evaluator:
    """Evaluates a model in its present state.

    `pretrained_fraction` of its weights came from a checkpoint, if known.
    """

    accelerator: Accelerator
    model: Any
    processor: Any
    optimizer: Optimizer
    train_dataset: Dataset
    eval_dataset: Dataset | None
    batch_size: int
    pretrained_fraction: float | None
    sample: MatchingSample = field(init=False)

    def __post_init__(self) -> None:
        self.sample = MatchingSample(self.train_dataset, ImageFormat.of(self.processor), self.batch_size)

    def evaluate(self, progress: Callable[[int, int], None], check_stop: Callable[[], object]) -> Evaluation:
        """Evaluate on the evaluation split, with all processes together."""
        split = self.eval_dataset
        if split is None:
            return Evaluation({}, [])
        detections = detect_together(
            self.accelerator, self.model, self.processor, split, self.batch_size,
            lambda images: progress(images, len(split)), check_stop,
        )  # fmt: skip
        return Evaluation(coco_metrics(split, detections), detections)

    def matching_changes(
        self, criterion: SetCriterion, last_step: Row, fraction: float, failures_of: FailuresOf
    ) -> Row:
        """Return changes of the matching on the sample, and `remarks`; on the main process only.

        `last_step` is the last row of a step, and `fraction` the part of the run that is over. `failures_of` returns the
        context to match a batch in.
        """
        if not self.accelerator.is_main_process:
            return {}
        changes = self.sample.update(self.model, criterion, self.accelerator.device, failures_of)
        queries = family_of(self.model).num_queries(self.model.config)
        return {**changes, "remarks": remarks(last_step, changes, queries, fraction)}

    def diagnosis(self, metrics: Mapping[str, Any], log: TrainLog, step: int) -> list[str]:
        """Return the likely causes of an mAP near 0, on the main process only; empty for a higher one."""
        value = metrics.get("map")
        if self.eval_dataset is None or value is None or value >= MAP_OF_NOTHING:
            return []
        if not self.accelerator.is_main_process:
            return []
        train, validation = (
            measure_overlaps(self.model, self.processor, split, self.batch_size)
            for split in (self.train_dataset, self.eval_dataset)
        )
        rate = max(group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups)
        history = History(log.losses, step, rate, self.pretrained_fraction, log.last_step.get("no_object_share"))
        return diagnose(train, validation, class_names(self.train_dataset), history)


def detect_together(
    accelerator: Accelerator,
    model: Any,
    processor: Any,
    split: Dataset,
    batch_size: int,
    progress: Callable[[int], None] = lambda images: None,
    check_stop: Callable[[], object] = lambda: None,
) -> list[Detections]:
    """Return the detections of every image of a split on all processes, each found by exactly one.

    Records are gathered rather than padded tensors, so parts of different or no length need no special case. `progress`
    gets the number of images so far. `check_stop` is called with every batch, equally often on all processes: it may use
    collectives, and raise.
    """
    processes, rank = accelerator.num_processes, accelerator.process_index
    own = split.select(range(rank, len(split), processes))
    rounds = -(-len(split) // (processes * batch_size))

    def after_image(images: int) -> None:
        progress(images)
        if images % batch_size == 0:
            check_stop()

    detections = detect_split(model, processor, own, batch_size, after_image)
    for _ in range(len(own) // batch_size, rounds):
        check_stop()
    by_rank = gather_objects(detections)
    return [by_rank[index % processes][index // processes] for index in range(len(split))]
