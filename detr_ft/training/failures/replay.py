"""Repeat a failed step on a CPU, and locate the first tensor that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForObjectDetection, PreTrainedModel

from detr_ft.criterion import CriterionError, SetCriterion, describe_exception, find_fault
from detr_ft.criterion.input_checks import TargetError
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.errors import InputError
from detr_ft.models.attach import AttachedCriterion, attach_criterion
from detr_ft.models.freeze import live_norms
from detr_ft.models.load import read_config
from detr_ft.models.lora import add_adapters
from detr_ft.models.metadata import read_lora
from detr_ft.structures import StepTotals
from detr_ft.training.checkpoint.state import WEIGHTS, load_tensors, load_weights, read_state
from detr_ft.training.step_totals import seed_step
from detr_ft.utils.user_code import is_interrupt


@dataclass(frozen=True)
class Verdict:
    """The first value that is not finite.

    `origin` is pixels, target, weight, prediction, cost, loss or gradient.
    """

    origin: str
    words: str


class Capsule:
    """A failure capsule read from its folder. Raises InputError for another folder or an incomplete one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.state = read_state(folder)
            self.tensors = load_tensors(folder)
            self.config = read_config(str(folder))
            self.processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
            self.images: list[dict[str, Any]] = self.state["images"]
            self.number, self.process, self.seed = (int(self.state[key]) for key in ("step", "process", "seed"))
            self.batches = self.tensors["batches"]
            self.criterion = dict(self.state["criterion"])  # its description
            self.code_folder = Path(dict(self.state["facts"]).get("folder", "."))
            self.why = str(self.state["why"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{folder}: no failure capsule, or an incomplete one: {error}. Pass a folder that the failed run named."
            ) from error
        if not (folder / WEIGHTS).is_file():
            raise InputError(
                f"{folder}: the model was too large for the capsule. Copy its weights of step {self.number - 1} there as {WEIGHTS}."
            )

    def model(self) -> PreTrainedModel:
        """Return the model before the step, in training mode."""
        model: PreTrainedModel = AutoModelForObjectDetection.from_config(self.config)
        if self.state["live_norms"]:
            live_norms(model)
        if lora := read_lora(self.config):
            add_adapters(model, **lora)
        load_weights(model, self.folder)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self.state["frozen"])
        model.train()
        return model

    @property
    def totals(self) -> StepTotals | None:
        """The totals of the step; None in a capsule without them."""
        totals = self.tensors["step"]
        return totals and StepTotals(totals["images"], totals["labels"], totals.get("processes", 1))


def replay(capsule: Capsule, criterion: SetCriterion) -> Verdict | None:
    """Return the cause of the failure; None if the step succeeds on this CPU, with other dropout."""
    model = capsule.model()
    for name, value in model.state_dict().items():
        if not _finite(value):
            return Verdict("weight", f"the weight {name} was NaN or infinite before the step")
    attached = attach_criterion(model, criterion)
    seed_step(capsule.seed, capsule.number, capsule.process)
    form = ImageFormat.of(capsule.processor)
    start = 0
    with attached.step_totals(capsule.totals):
        for batch in capsule.batches:
            inputs = form.normalize(batch["inputs"])
            images = capsule.images[start : start + len(batch["rows"]) * batch["counts"]]
            start += len(images)
            precision = capsule.state["mixed_precision"]
            verdict = _of_inputs(inputs) or _of_step(model, attached, criterion, inputs, precision)
            if verdict:
                ids = ", ".join(str(image["image_id"]) for image in images)
                return Verdict(verdict.origin, f"{verdict.words} (a batch of the images {ids})")
    return None


def _of_inputs(inputs: dict[str, Any]) -> Verdict | None:
    bad = (~inputs["pixel_values"].flatten(1).isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        return Verdict("pixels", f"the pixels of image {bad[0]} of the batch are NaN or infinite")
    for number, label in enumerate(inputs["labels"]):
        if not _finite(label["boxes"]):
            boxes = label["boxes"].tolist()
            return Verdict("target", f"a box of image {number} of the batch is NaN or infinite: {boxes}")
    return None


def _of_step(
    model: PreTrainedModel, attached: AttachedCriterion, criterion: SetCriterion, inputs: dict[str, Any], precision: str
) -> Verdict | None:
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with ExitStack() as stack:
        forward = stack.enter_context(_first_bad_output(model))
        if half:
            stack.enter_context(torch.autocast("cpu", dtype=half))
        try:
            outputs = model(**inputs)
        except TargetError as error:
            return Verdict("target", str(error))
        except CriterionError as error:
            return Verdict("prediction", f"{forward[0]}; {error}") if forward else Verdict("cost", str(error))
        except BaseException as error:  # noqa: BLE001 - the user's term may raise anything, which is the verdict
            return _of_exception("loss", error, criterion)
    if forward:
        return Verdict("prediction", forward[0])
    bad_terms = [name for name, value in outputs.loss_dict.items() if not _finite(value)]
    if bad_terms or not _finite(outputs.loss):
        values = f"the loss is {outputs.loss.item()}, not finite: {', '.join(bad_terms)}"
        return Verdict("loss", _fault(attached, criterion) or values)
    with _first_bad_gradient(model) as backward:
        try:
            outputs.loss.backward()
        except BaseException as error:  # noqa: BLE001 - of a backward pass that the user wrote
            return _of_exception("gradient", error, criterion)
    bad = [name for name, weight in model.named_parameters() if weight.grad is not None and not _finite(weight.grad)]
    if not bad:
        return None
    first = backward[0] if backward else "a gradient is NaN or infinite"
    return Verdict("gradient", _fault(attached, criterion) or f"{first}: first of {bad[-1]}")


def _of_exception(origin: str, error: BaseException, criterion: SetCriterion) -> Verdict:
    if is_interrupt(error):
        raise error
    return Verdict(origin, describe_exception(error, criterion))


def _fault(attached: AttachedCriterion, criterion: SetCriterion) -> str | None:
    try:
        return find_fault(criterion, *attached.last) if attached.last else None
    except BaseException as error:  # noqa: BLE001 - the user's term may raise anything
        return _of_exception("", error, criterion).words


@contextmanager
def _first_bad_output(model: nn.Module) -> Iterator[list[str]]:
    """Yield a list that receives the first module whose output is not finite."""
    faults: list[str] = []

    def check_output(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not faults and not all(map(_finite, _tensors(output))):
                faults.append(f"the output of {name} ({type(module).__name__}) is NaN or infinite, its inputs are not")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(check_output(name)) for name, module in leaves]
    try:
        yield faults
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _first_bad_gradient(model: nn.Module) -> Iterator[list[str]]:
    """Yield a list that receives the first gradient, backwards from the loss, that is not finite."""
    faults: list[str] = []

    def check_gradient(name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if not faults and not _finite(gradient):
                faults.append(f"the gradient of {name} is NaN or infinite, the first backwards from the loss")

        return hook

    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    handles = [weight.register_hook(check_gradient(name)) for name, weight in trained]
    try:
        yield faults
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple)):
        for part in output:
            yield from _tensors(part)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())
