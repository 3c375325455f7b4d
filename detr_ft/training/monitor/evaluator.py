"""The evaluations of a run: COCO figures, how the matching does on the same few images, remarks, and a diagnosis at need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from torch.optim import Optimizer

from detr_ft.criterion import SetCriterion
from detr_ft.data import class_names
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.models.predict import detect_split
from detr_ft.structures import Detections
from detr_ft.training.monitor.diagnosis import NOTHING, Training, diagnose, see
from detr_ft.training.monitor.matching_drift import MatchingSample
from detr_ft.training.monitor.remarks import judge
from detr_ft.training.monitor.training_log import TrainLog

Evaluated = tuple[dict[str, Any], list[Detections]]
Row = dict[str, Any]


@dataclass
class Evaluator:
    """Examines a model as it is at the moment. `loaded` is the share of its weights from a checkpoint, where it is known."""

    accelerator: Accelerator
    model: Any
    processor: Any
    optimizer: Optimizer
    train_dataset: Dataset
    eval_dataset: Dataset | None
    batch_size: int
    loaded: float | None
    sample: MatchingSample = field(init=False)

    def __post_init__(self) -> None:
        self.sample = MatchingSample(self.train_dataset, ImageFormat.of(self.processor), self.batch_size)

    def figures(self, progress: Callable[[int, int], None], look_up: Callable[[], object]) -> Evaluated:
        """COCO figures and detections on the evaluation split, on all processes together; empty where there is none."""
        split = self.eval_dataset
        if split is None:
            return {}, []
        return evaluate_split(
            self.accelerator, self.model, self.processor, split, self.batch_size,
            lambda done: progress(done, len(split)), look_up,
        )  # fmt: skip

    def look(self, criterion: SetCriterion, last_step: Row, done: float) -> Row:
        """Figures of the matching on the sample, and `remarks` in words; the main process alone looks.

        `last_step` is the last row of a step, and `done` is the share of the run that is behind.
        """
        if not self.accelerator.is_main_process:
            return {}
        looked = self.sample.look(self.model, criterion, self.accelerator.device)
        return {**looked, "remarks": judge(last_step, looked, self.model.config.num_queries, done)}

    def diagnosis(self, metrics: Mapping[str, Any], log: TrainLog, step: int) -> list[str]:
        """The likely causes where an evaluation found nothing; else none. The main process alone looks."""
        found = metrics.get("map")
        if self.eval_dataset is None or found is None or found >= NOTHING or not self.accelerator.is_main_process:
            return []
        trained, held_out = (
            see(self.model, self.processor, split, self.batch_size) for split in (self.train_dataset, self.eval_dataset)
        )
        fastest = max(group.get("initial_lr", group["lr"]) for group in self.optimizer.param_groups)
        training = Training(log.losses, step, fastest, self.loaded, log.last_step.get("no_object_share"))
        return diagnose(trained, held_out, class_names(self.train_dataset), training)


def evaluate_split(
    accelerator: Accelerator,
    model: Any,
    processor: Any,
    split: Dataset,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
    look_up: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Any], list[Detections]]:
    """COCO figures and detections of every image of the split, each seen by exactly one process.

    Plain records are gathered rather than padded tensors, so ragged and empty shares are no special case. `look_up` is
    called with every batch, equally often on all processes, which may ask each other there, and raise.
    """
    processes, rank = accelerator.num_processes, accelerator.process_index
    mine = split.select(range(rank, len(split), processes))
    rounds = -(-len(split) // (processes * batch_size))

    def taken(images: int) -> None:
        progress(images)
        if images % batch_size == 0:
            look_up()

    found = detect_split(model, processor, mine, batch_size, taken)
    for _ in range(len(mine) // batch_size, rounds):
        look_up()
    if processes > 1:
        shares = gather_object([(rank, found)])
        by_rank = dict(shares)
        found = [by_rank[index % processes][index // processes] for index in range(len(split))]
    return coco_metrics(split, found), found
