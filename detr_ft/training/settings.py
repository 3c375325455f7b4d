"""The settings of a training run, under the names that people know from `transformers.TrainingArguments`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from detr_ft.evaluation.metrics import MetricName


class TrainSettings(BaseModel):
    """How long, how fast and where to. Every value is honoured; there are no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    output_dir: str = Field(min_length=1)
    num_train_epochs: int = Field(default=20, ge=1)
    per_device_train_batch_size: int = Field(default=8, ge=1)
    per_device_eval_batch_size: int = Field(default=8, ge=1)
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="so many batches make a step of the optimizer, exact as one large batch"
    )
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    lr_scheduler_type: Literal["constant", "constant_with_warmup", "cosine", "linear", "polynomial", "step"] = "linear"
    warmup_steps: float = Field(default=0, ge=0, description="steps of the optimizer, or below 1 a fraction of the run")
    lr_power: float | None = Field(default=None, gt=0, description="of a polynomial; left out: 1, a straight line")
    lr_drop_epochs: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="after so many epochs each, type step divides the rate by 10; DETR: [200] of 300 epochs"
    )
    max_grad_norm: float = Field(default=0.1, gt=0)
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="evaluate and save the average of the weights; left out: no average"
    )
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = Field(default=False, description="less memory, a third more time")
    torch_compile: bool = Field(default=False, description="compile backbone and layers; takes minutes at the start")
    cuda_graphs: bool = Field(default=True, description="on one GPU, start the operations of a step together")
    full_determinism: bool = Field(default=False, description="the same bits on a GPU, too; slower")
    dataloader_num_workers: int = Field(default=0, ge=0)
    logging_steps: int = Field(default=10, ge=1)
    eval_epochs: int = Field(default=1, ge=0, description="evaluate after every so many epochs; 0: at the end only")
    metric_for_best_model: MetricName = "map"
    early_stopping_patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations without a better figure; left out: never"
    )
    early_stopping_threshold: float = Field(default=0.0, ge=0, lt=1, description="better is better by more than this")
    max_minutes: float | None = Field(default=None, gt=0, description="train for so long at the most")
    load_best_model_at_end: bool = Field(default=False, description="the run's model is that of its best evaluation")
    save_steps: int | None = Field(
        default=None, ge=1, description="left out: after an epoch, once the last checkpoint is a minute old"
    )
    save_total_limit: int = Field(default=2, ge=1, description="so many of the newest checkpoints are kept")
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio", "comet_ml", "aim", "clearml", "swanlab"]] = (
        Field(default=[], description="also to these, beside log.jsonl")
    )
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def mixed_precision(self) -> str:
        """The same as accelerate says it."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "no"

    @field_validator("warmup_steps")
    @classmethod
    def _whole_or_fraction(cls, steps: float) -> float:
        if steps >= 1 and steps != int(steps):
            raise ValueError("is a whole number of steps, or below 1 a fraction of the run")
        return steps

    @model_validator(mode="after")
    def _go_together(self) -> TrainSettings:
        problems = [message for wrong, message in self._mismatches() if wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _mismatches(self) -> list[tuple[bool, str]]:
        """Settings that would go unheeded beside others, each with what to do."""
        kind, drops = self.lr_scheduler_type, self.lr_drop_epochs
        return [
            (self.bf16 and self.fp16, "bf16 and fp16 exclude each other: take bf16 where the GPU has it"),
            (
                kind == "constant" and self.warmup_steps > 0,
                "lr_scheduler_type constant has no warm-up: take constant_with_warmup, or leave warmup_steps out",
            ),
            (kind == "step" and not drops, "lr_scheduler_type step needs lr_drop_epochs, for example [20]"),
            (kind != "step" and bool(drops), f"lr_drop_epochs goes with lr_scheduler_type step, not {kind}"),
            (
                any(drop >= self.num_train_epochs for drop in drops),
                f"lr_drop_epochs {drops}: training ends after num_train_epochs={self.num_train_epochs}, "
                "and each drop comes before",
            ),
            (len(set(drops)) < len(drops), f"lr_drop_epochs {drops}: an epoch stands there twice"),
            (
                kind != "polynomial" and self.lr_power is not None,
                f"lr_power goes with lr_scheduler_type polynomial, not {kind}",
            ),
            (
                self.early_stopping_patience is not None and self.eval_epochs == 0,
                "early_stopping_patience counts evaluations: eval_epochs is to be 1 or more",
            ),
            (
                self.early_stopping_patience is None and self.early_stopping_threshold > 0,
                "early_stopping_threshold goes with early_stopping_patience",
            ),
        ]


class OptimSettings(BaseModel):
    """What the optimizer treats apart. A rate that is left out is `train.learning_rate`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone_learning_rate: float | None = Field(default=None, gt=0)
    encoder_learning_rate: float | None = Field(default=None, gt=0, description="and of the projection that it reads")
    decoder_learning_rate: float | None = Field(default=None, gt=0, description="and of the queries")
    heads_learning_rate: float | None = Field(default=None, gt=0, description="of classes and boxes")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="a layer k layers below the heads learns at this to the k of its rate"
    )
