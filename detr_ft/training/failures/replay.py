"""Take a step that failed again, on a CPU, and find the first tensor of it that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection, PreTrainedModel

from detr_ft.criterion import CriterionError, SetCriterion, find_fault
from detr_ft.criterion.input_checks import TargetError
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.errors import InputError
from detr_ft.models.attach import AttachedCriterion, attach_criterion
from detr_ft.models.freeze import live_norms
from detr_ft.models.lora import add_adapters
from detr_ft.models.metadata import read_lora
from detr_ft.structures import StepTotals
from detr_ft.training.checkpoint.state import WEIGHTS, load_tensors, load_weights, read_state
from detr_ft.training.step_totals import seed_step


@dataclass(frozen=True)
class Verdict:
    """What a replay found: where the first bad number comes from (pixels, target, weight, prediction, cost, loss, gradient), and in words."""

    origin: str
    words: str


class Capsule:
    """A failure capsule, opened. Raises InputError for a folder that is none, or is not whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.told = read_state(folder)
            self.tensors = load_tensors(folder)
            self.config = AutoConfig.from_pretrained(folder)
            self.processor = AutoImageProcessor.from_pretrained(folder)
            self.images: list[dict[str, Any]] = self.told["images"]
            self.number, self.process, self.seed = (int(self.told[key]) for key in ("step", "process", "seed"))
            self.batches = self.tensors["batches"]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{folder}: this is no failure capsule, or not a whole one: {error}") from error
        if not (folder / WEIGHTS).is_file():
            raise InputError(
                f"{folder}: the model was too large for the capsule: put its weights of step {self.number - 1} there as {WEIGHTS}"
            )

    def model(self) -> PreTrainedModel:
        """The model as it was before the step, in training mode."""
        model: PreTrainedModel = AutoModelForObjectDetection.from_config(self.config)
        if self.told["live_norms"]:
            live_norms(model)
        if lora := read_lora(self.config):
            add_adapters(model, **lora)
        load_weights(model, self.folder)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self.told["frozen"])
        model.train()
        return model


def replay(capsule: Capsule, criterion: SetCriterion) -> Verdict | None:
    """What is wrong with the step of a capsule; None where it can be taken here, on a CPU and with dropout of its own."""
    model = capsule.model()
    for name, value in model.state_dict().items():
        if not _finite(value):
            return Verdict("weight", f"the weight {name} was NaN or infinite before the step")
    attached = attach_criterion(model, criterion)
    held = capsule.tensors["step"]
    attached.step = held and StepTotals(held["images"], held["labels"])
    seed_step(capsule.seed, capsule.number, capsule.process)
    form = ImageFormat.of(capsule.processor)
    place = 0
    for batch in capsule.batches:
        inputs = form.normalize(batch["inputs"])
        ids = capsule.images[place : place + len(batch["rows"]) * batch["counts"]]
        place += len(ids)
        verdict = _of_inputs(inputs) or _of_step(model, attached, criterion, inputs, capsule.told["mixed_precision"])
        if verdict:
            among = ", ".join(str(one["image_id"]) for one in ids)
            return Verdict(verdict.origin, f"{verdict.words} (a batch of the images {among})")
    return None


def _of_inputs(inputs: dict[str, Any]) -> Verdict | None:
    bad = (~inputs["pixel_values"].flatten(1).isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        return Verdict("pixels", f"the pixels of image {bad[0]} of the batch are NaN or infinite")
    for number, one in enumerate(inputs["labels"]):
        if not _finite(one["boxes"]):
            return Verdict(
                "target", f"a box of image {number} of the batch is NaN or infinite: {one['boxes'].tolist()}"
            )
    return None


def _of_step(
    model: PreTrainedModel,
    attached: AttachedCriterion,
    criterion: SetCriterion,
    inputs: dict[str, Any],
    precision: str,
) -> Verdict | None:
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with ExitStack() as stack:
        forward = stack.enter_context(_first_bad_output(model))
        if half:
            stack.enter_context(torch.autocast("cpu", dtype=half))
        try:
            loss = model(**inputs).loss
        except TargetError as error:
            return Verdict("target", str(error))
        except CriterionError as error:
            return Verdict("prediction", f"{forward[0]}; {error}") if forward else Verdict("cost", str(error))
        except Exception as error:  # noqa: BLE001 - a term of the user's may raise anything, and that is the answer
            return Verdict("loss", f"{type(error).__name__}: {error}")
    if forward:
        return Verdict("prediction", forward[0])
    asked = attached.last
    if not _finite(loss):
        fault = find_fault(criterion, *asked) if asked else None
        return Verdict("loss", fault or f"the loss is {loss.item()}")
    with _first_bad_gradient(model) as backward:
        loss.backward()
    bad = [name for name, one in model.named_parameters() if one.grad is not None and not _finite(one.grad)]
    if not bad:
        return None
    fault = find_fault(criterion, *asked) if asked else None
    return Verdict(
        "gradient", fault or f"{backward[0] if backward else 'a gradient is NaN or infinite'}: first of {bad[-1]}"
    )


@contextmanager
def _first_bad_output(model: nn.Module) -> Iterator[list[str]]:
    """Within the context, the first module whose output is not finite is noted."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(map(_finite, _tensors(output))):
                found.append(f"the output of {name} ({type(module).__name__}) is NaN or infinite, its inputs are not")

        return hook

    handles = [one.register_forward_hook(look(name)) for name, one in model.named_modules() if not list(one.children())]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _first_bad_gradient(model: nn.Module) -> Iterator[list[str]]:
    """Within the context, the first parameter, from the loss backwards, whose gradient is not finite is noted."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(gradient: Tensor) -> None:
            if not found and not _finite(gradient):
                found.append(f"the gradient of {name} is NaN or infinite, the first from the loss backwards")

        return hook

    handles = [one.register_hook(look(name)) for name, one in model.named_parameters() if one.requires_grad]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for one in output:
            yield from _tensors(one)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
