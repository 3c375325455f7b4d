"""The settings of a training run, named as in `transformers.TrainingArguments`."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from detr_ft.evaluation.metrics import MetricName


class TrainSettings(BaseModel):
    """Length, speed and output of a run. Unknown names are errors, and every value has an effect."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    output_dir: str = Field(min_length=1, description="folder of the run; must be empty or absent")
    num_train_epochs: int = Field(default=20, ge=1, description="passes over the training images")
    per_device_train_batch_size: int = Field(default=8, ge=1, description="images in the model at once")
    per_device_eval_batch_size: int = Field(default=8, ge=1, description="images in the model at once in evaluations")
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="batches of an optimizer step, which equals that of one large batch"
    )
    learning_rate: float = Field(default=1e-4, gt=0, description="highest rate of the schedule")
    weight_decay: float = Field(default=1e-4, ge=0, description="of AdamW; norms, biases and embeddings have none")
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "cosine", "linear", "polynomial", "step"] = Field(
        default="linear", description="schedule of the rate; step is DETR's"
    )
    warmup_steps: float = Field(default=0, ge=0, description="optimizer steps, or below 1 a fraction of the run")
    lr_power: float | None = Field(default=None, gt=0, description="of a polynomial; default: 1, a straight line")
    lr_drop_epochs: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="epochs after which type step divides the rate by 10; DETR: [200] of 300 epochs"
    )
    max_grad_norm: float = Field(default=0.1, gt=0, description="norm to which gradients are clipped")
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="evaluate and save a moving average of the weights; default: none"
    )
    bf16: bool = Field(default=False, description="bfloat16 autocast")
    fp16: bool = Field(default=False, description="float16 autocast with loss scaling; needs a GPU")
    gradient_checkpointing: bool = Field(default=False, description="less memory, a third more time")
    torch_compile: bool = Field(default=False, description="compile backbone and layers; takes minutes at the start")
    cuda_graphs: bool = Field(default=True, description="start the operations of a step together, on one GPU")
    full_determinism: bool = Field(default=False, description="identical bits on a GPU, too; slower")
    dataloader_num_workers: int = Field(default=0, ge=0, description="processes that read images during the steps")
    dataloader_timeout: float = Field(
        default=120, gt=0, description="seconds to read and augment an image; one that takes longer ends the run"
    )
    logging_steps: int = Field(default=10, ge=1, description="steps between rows of the log")
    eval_epochs: int = Field(default=1, ge=0, description="epochs between evaluations; 0: at the end only")
    metric_for_best_model: MetricName = Field(default="map", description="metric that chooses the best evaluation")
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations without a better one; default: never"
    )
    early_stopping_threshold: float = Field(default=0.0, ge=0, lt=1, description="smallest improvement that counts")
    max_minutes: float | None = Field(default=None, gt=0, description="longest duration of the training")
    load_best_model_at_end: bool = Field(default=False, description="end with the model of the best evaluation")
    save_steps: int | None = Field(
        default=None, ge=1, description="steps between checkpoints; default: each epoch, at most once a minute"
    )
    save_total_limit: int = Field(default=2, ge=1, description="number of checkpoints, the newest; others are removed")
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio", "comet_ml", "aim", "clearml", "swanlab"]] = (
        Field(default=[], description="trackers to use in addition to log.jsonl")
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of weights, order, augmentation and dropout")

    @property
    def mixed_precision(self) -> str:
        """The name of the precision for accelerate."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "no"

    @field_validator("output_dir", mode="before")
    @classmethod
    def _path_as_text(cls, path: object) -> object:
        return os.fspath(path) if isinstance(path, os.PathLike) else path

    @field_validator("warmup_steps")
    @classmethod
    def _whole_or_fraction(cls, steps: float) -> float:
        if steps >= 1 and steps != int(steps):
            raise ValueError("must be a whole number of steps, or below 1 a fraction of the run")
        return steps

    @model_validator(mode="after")
    def _compatible(self) -> TrainSettings:
        problems = [message for is_wrong, message in self._mismatches() if is_wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _mismatches(self) -> list[tuple[bool, str]]:
        """Return for each pair of settings of which one would have no effect, if it is given, and a message."""
        kind, drops = self.lr_scheduler_type, self.lr_drop_epochs
        return [
            (self.bf16 and self.fp16, "bf16 and fp16 exclude each other: use bf16 if the GPU has it"),
            (
                kind == "constant" and self.warmup_steps > 0,
                "warmup_steps has no effect with lr_scheduler_type constant: use constant_with_warmup, or remove it",
            ),
            (kind == "step" and not drops, "lr_scheduler_type step needs lr_drop_epochs, for example [20]"),
            (kind != "step" and bool(drops), f"lr_drop_epochs needs lr_scheduler_type step, got {kind}"),
            (
                any(drop >= self.num_train_epochs for drop in drops),
                f"lr_drop_epochs must be before the end, num_train_epochs={self.num_train_epochs}, got {drops}",
            ),
            (len(set(drops)) < len(drops), f"lr_drop_epochs must be different, got {drops}"),
            (
                kind != "polynomial" and self.lr_power is not None,
                f"lr_power needs lr_scheduler_type polynomial, got {kind}",
            ),
            (
                self.early_stopping_patience is not None and self.eval_epochs == 0,
                "early_stopping_patience counts evaluations: eval_epochs must be at least 1",
            ),
            (
                self.early_stopping_patience is None and self.early_stopping_threshold > 0,
                "early_stopping_threshold needs early_stopping_patience",
            ),
        ]


class OptimSettings(BaseModel):
    """Learning rates of parts of the model; default: `train.learning_rate`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone_learning_rate: float | None = Field(default=None, gt=0, description="of the backbone")
    encoder_learning_rate: float | None = Field(default=None, gt=0, description="of the encoder and its projection")
    decoder_learning_rate: float | None = Field(default=None, gt=0, description="of the decoder and its queries")
    heads_learning_rate: float | None = Field(default=None, gt=0, description="of the heads for classes and boxes")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="multiplies the rate of a layer k layers below the heads by its k-th power"
    )
