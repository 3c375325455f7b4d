"""The settings of a training run, under the names that people know from `transformers.TrainingArguments`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """How long, how fast and where to. Every value is honoured; there are no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    output_dir: str = Field(min_length=1)
    num_train_epochs: int = Field(default=20, ge=1)
    per_device_train_batch_size: int = Field(default=8, ge=1)
    per_device_eval_batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    lr_scheduler_type: Literal["constant_with_warmup", "cosine", "linear"] = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=0.1, gt=0)
    bf16: bool = False
    dataloader_num_workers: int = Field(default=0, ge=0)
    logging_steps: int = Field(default=10, ge=1)
    eval_epochs: int = Field(default=1, ge=0, description="evaluate after every so many epochs; 0: at the end only")
    seed: int = Field(default=0, ge=0, lt=2**32)


class OptimSettings(BaseModel):
    """What the optimizer treats apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone_learning_rate: float | None = Field(default=None, gt=0, description="left out: as everything else")
