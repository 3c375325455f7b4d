"""What a run has in its hands while it trains, and a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch.optim.lr_scheduler import LRScheduler

from detr_ft.training.checkpoint.state import Progress, files_of, load_tensors
from detr_ft.training.ema import Ema
from detr_ft.training.monitor.matching_drift import MatchingSample
from detr_ft.training.monitor.training_log import TrainLog
from detr_ft.training.schedule import go_to


@dataclass
class TrainingState:
    """A run at a step. Every process holds the same."""

    accelerator: Accelerator
    model: Any
    processor: Any
    optimizer: Any
    schedule: LRScheduler
    ema: Ema | None
    log: TrainLog
    sample: MatchingSample
    at: Progress

    def files(self, facts: Mapping[str, Any]) -> dict[str, bytes]:
        """The files of a checkpoint; `facts` are what it is to tell of the run."""
        self.at.rows = self.log.rows
        tensors = {
            "optimizer": self.optimizer.state_dict()["state"],
            "since": self.log.since.state(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
            "ema": self.ema.state_dict() if self.ema else {},
            "partners": self.sample.partners,
        }
        return files_of(self.model, self.processor, tensors, {"progress": self.at, "facts": facts})

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; weights are loaded already. Learning rates are the settings', not the checkpoint's."""
        images_a_step, self.at = self.at.images_a_step, Progress.read(checkpoint)
        self.at.place = (
            self.at.place * self.at.images_a_step // images_a_step
        )  # as many images on, in steps of this size
        self.at.images_a_step = images_a_step
        held = load_tensors(checkpoint)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": held["optimizer"], "param_groups": groups})
        go_to(self.schedule, self.at.step)
        if self.accelerator.scaler and held["scaler"]:
            self.accelerator.scaler.load_state_dict(held["scaler"])
        if self.ema and held["ema"]:
            self.ema.load_state_dict(held["ema"])
        self.sample.partners = held["partners"]
        self.log.cut(self.at.rows)
        self.log.since.restore(held["since"], self.accelerator.device)
