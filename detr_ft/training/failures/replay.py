"""Repeat a failed step on a CPU, and locate the first tensor that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from detr_ft.training.checkpoint.state import STATE, TENSORS, WEIGHTS, load_tensors, load_weights, read_state
from detr_ft.training.failures.capsule import WEIGHTS_DIGEST
from detr_ft.training.step_totals import seed_step
from detr_ft.utils.complete_folder import DIGESTS, digest_of, fault_of
from detr_ft.utils.user_code import is_interrupt

_STATE_FIELDS = {
    "step": int, "process": int, "seed": int, "images": list, "frozen": list, "live_norms": bool, "mixed_precision": str,
    "criterion": dict, "facts": dict, "why": str,
}  # fmt: skip
_TENSOR_FIELDS = {"batches": list}
_ENTRIES = {"images": {"image_id", "file"}, "batches": {"inputs", "rows", "counts"}}


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
            _check_files(folder)
            self.state = read_state(folder)
            self.tensors = load_tensors(folder)
            _check_fields(STATE, self.state, _STATE_FIELDS)
            _check_fields(TENSORS, self.tensors, _TENSOR_FIELDS)
            self.config = read_config(str(folder))
            self.processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"{folder}: no failure capsule, or a damaged one: {error}. Copy the folder that the failed run named again."
            ) from error
        self.images: list[dict[str, Any]] = self.state["images"]
        self.number, self.process, self.seed = (self.state[key] for key in ("step", "process", "seed"))
        self.batches = self.tensors["batches"]
        self.criterion: dict[str, Any] = self.state["criterion"]  # its description
        self.code_folder = Path(self.state["facts"].get("folder", "."))
        self.why: str = self.state["why"]
        _check_weights(folder, self.number)

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
        totals = self.tensors.get("step")
        return totals and StepTotals(totals["images"], totals["labels"], totals.get("processes", 1))


def _check_files(folder: Path) -> None:
    """Raise ValueError if a file changed after the capsule was written. Earlier ones have no digests."""
    fault = fault_of(folder) if (folder / DIGESTS).is_file() else None
    if fault:
        raise ValueError(fault)


def _check_fields(file: str, values: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Raise ValueError with every value that is missing, or of another kind than the loop writes."""
    faults = [
        f"{name} must be a {kind.__name__}, got {type(values.get(name)).__name__}"
        for name, kind in kinds.items()
        if not isinstance(values.get(name), kind)
    ]
    if not faults and not all(
        isinstance(entry, dict) and entry.keys() >= keys
        for name, keys in _ENTRIES.items()
        for entry in values.get(name, ())
    ):
        faults.append(f"an entry of {' or '.join(name for name in _ENTRIES if name in values)} is incomplete")
    if faults:
        raise ValueError(f"{file}: {', '.join(faults)}")


def _check_weights(folder: Path, step: int) -> None:
    """Raise InputError if the weights of a large model were not copied into its capsule, or others were."""
    of_before = f"Copy those of step {step - 1} there as {WEIGHTS}"
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: the model was too large for the capsule, which has no weights. {of_before}")
    recorded = folder / WEIGHTS_DIGEST
    if recorded.is_file() and digest_of(folder / WEIGHTS) != recorded.read_text(encoding="utf-8").strip():
        raise InputError(f"{folder / WEIGHTS}: not the weights of the failed step. {of_before}")


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
