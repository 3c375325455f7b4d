"""The state that a checkpoint saves, sufficient for a bit-exact resume, and its files.

A checkpoint has no random state: the random numbers of a step are seeded with (seed, step, process), those of an
augmentation with (seed, epoch, index), and the order of images with (seed, epoch). Its folder loads in transformers.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from detr_ft import run_directory
from detr_ft.errors import InputError
from detr_ft.models.load import load_model
from detr_ft.models.lora import weights_with_zero_adapters
from detr_ft.models.weights import read_safetensors, read_tensors
from detr_ft.training.monitor.matching import MatchingSample
from detr_ft.training.monitor.training_log import TrainLog
from detr_ft.training.optimizer import go_to
from detr_ft.training.step import Stepper
from detr_ft.training.step_loader import StepBatch
from detr_ft.utils.files import read_json

# A run stays the same run if these facts change.
_IGNORED_FACTS = (
    "folder", "recipe.train.output_dir", "recipe.hub", "recipe.train.save_total_limit", "recipe.train.dataloader_timeout",
)  # fmt: skip
_VITAL_FACTS = ("classes", "data")
_MAX_FACT_CHARACTERS = 200
STATE, WEIGHTS, TENSORS = run_directory.CHECKPOINT_STATE, run_directory.WEIGHTS, run_directory.CHECKPOINT_TENSORS
_PROGRESS_KEYS = {  # in `state.json`, by field of Progress
    "step": "step", "epoch": "epoch", "index": "place", "images_per_step": "images_a_step", "evaluated": "evaluated",
    "rows": "rows", "seconds": "seconds", "evaluation_seconds": "evaluation_seconds",
}  # fmt: skip
_TENSOR_KINDS = {"optimizer": Mapping, "since": Mapping, "scaler": Mapping, "ema": Mapping, "partners": Tensor}
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # of a parameter in AdamW
_RESTORE = "Restore the folder from a backup, or remove it to use an earlier checkpoint."
# Raised by torch for files that it did not write, and for damaged ones.
_TORCH_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, pickle.UnpicklingError)


@dataclass
class Progress:
    """The position of a run after `step` steps; the next is number `index` of `epoch`, both from 0."""

    step: int = 0
    epoch: int = 0
    index: int = 0
    images_per_step: int = 0
    evaluated: int = 0  # the step of the latest evaluation
    rows: int = 0  # of the log
    seconds: float = 0.0
    evaluation_seconds: float = 0.0  # of the latest evaluation

    def advance(self, batch: StepBatch, steps_per_epoch: int) -> None:
        """Move to the step after the one of `batch`."""
        self.step += 1
        ends_epoch = batch.index + 1 == steps_per_epoch
        self.epoch, self.index = (batch.epoch + 1, 0) if ends_epoch else (batch.epoch, batch.index + 1)

    def record_evaluation(self, seconds: float) -> None:
        """Record that the present step was evaluated, in so many seconds."""
        self.evaluated, self.evaluation_seconds = self.step, seconds

    def as_json(self) -> dict[str, Any]:
        """Return the entries of `state.json`."""
        return {key: getattr(self, name) for name, key in _PROGRESS_KEYS.items()}

    @classmethod
    def read(cls, checkpoint: Path) -> Progress:
        """Read the progress of a checkpoint; entries of other releases keep their default or are skipped.

        Raises InputError for values of another kind.
        """
        stored = _mapping_in(checkpoint, "progress")
        values = {name: stored[key] for name, key in _PROGRESS_KEYS.items() if key in stored}
        kinds = {name: float if name.endswith("seconds") else int for name in values}
        faults = [
            f"progress.{_PROGRESS_KEYS[name]} must be a {'number' if kinds[name] is float else 'whole number'} from 0, "
            f"got {value!r}"
            for name, value in values.items()
            if not _is_count(value, kinds[name])
        ]
        if "step" not in values:
            faults.append("progress.step is missing")
        if faults:
            raise InputError([f"{checkpoint / STATE}: {fault}. {_RESTORE}" for fault in faults])
        return cls(**values)


@dataclass
class TrainingState:
    """Everything of a run that a checkpoint saves and restores. Every process has the same."""

    stepper: Stepper
    processor: Any
    log: TrainLog
    sample: MatchingSample
    progress: Progress
    saved_step: int = -1  # of the newest checkpoint
    saved_at: float = field(default_factory=time.monotonic)

    def files(self, facts: Mapping[str, Any], seconds: float) -> dict[str, bytes]:
        """Return the files of a checkpoint after so many seconds of training; `facts` describe the run."""
        stepper, scaler = self.stepper, self.stepper.accelerator.scaler
        progress = replace(self.progress, rows=self.log.rows, seconds=seconds)
        tensors = {
            "optimizer": stepper.optimizer.state_dict()["state"],
            "since": self.log.interval.state(),
            "scaler": scaler.state_dict() if scaler else {},
            "ema": stepper.ema.state_dict() if stepper.ema else {},
            "partners": self.sample.partners,
        }
        state = {"progress": progress.as_json(), "facts": facts}
        return files_of(stepper.model, self.processor, tensors, state)

    def restore(self, checkpoint: Path) -> None:
        """Continue from a checkpoint whose weights are loaded. Learning rates are those of the settings.

        Raises InputError for a checkpoint with other values than those of `files`.
        """
        stepper, scaler = self.stepper, self.stepper.accelerator.scaler
        images_per_step = self.progress.images_per_step
        self.progress = progress = Progress.read(checkpoint)
        # The same number of images into the epoch, in steps of the present size.
        progress.index = progress.index * progress.images_per_step // images_per_step
        progress.images_per_step = images_per_step
        tensors = load_tensors(checkpoint)
        _check_tensors(checkpoint / TENSORS, tensors, stepper.optimizer)
        groups = stepper.optimizer.state_dict()["param_groups"]
        try:
            stepper.optimizer.load_state_dict({"state": tensors["optimizer"], "param_groups": groups})
            if scaler and tensors["scaler"]:
                scaler.load_state_dict(tensors["scaler"])
            if stepper.ema and tensors["ema"]:
                stepper.ema.load_state_dict(tensors["ema"])
            self.log.interval.restore(tensors["since"], stepper.accelerator.device)
        except _TORCH_ERRORS as error:
            raise InputError(f"{checkpoint / TENSORS}: a value of another kind: {error!r}. {_RESTORE}") from error
        go_to(stepper.schedule, progress.step)
        self.log.cut(progress.rows)
        self.sample.partners = tensors["partners"]
        self.mark_saved()

    def mark_saved(self) -> None:
        """Record that a checkpoint has this state."""
        self.saved_step, self.saved_at = self.progress.step, time.monotonic()


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return `state.json` of a checkpoint: `progress`, `facts` and other entries passed to `files_of`.

    Raises InputError.
    """
    state = read_json(checkpoint / STATE, _RESTORE)
    if not isinstance(state, dict):
        raise InputError(f"{checkpoint / STATE}: must be a JSON object, got {type(state).__name__}. {_RESTORE}")
    return state


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """Return the facts that describe the run of a checkpoint. Raises InputError."""
    return _mapping_in(checkpoint, "facts")


def _mapping_in(checkpoint: Path, key: str) -> dict[str, Any]:
    value = read_state(checkpoint).get(key)
    if not isinstance(value, dict):
        raise InputError(f"{checkpoint / STATE}: {key} must be a JSON object, got {value!r:.60}. {_RESTORE}")
    return value


def _is_count(value: Any, kind: type[int] | type[float]) -> bool:
    return isinstance(value, int | kind) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def files_of(model: Any, processor: Any, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a checkpoint: the weights of the model, `tensors`, and `state` as JSON."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    return {
        "config.json": model.config.to_json_string(use_diff=True).encode(),
        "preprocessor_config.json": processor.to_json_string().encode(),
        WEIGHTS: save_safetensors(weights, metadata={"format": "pt"}),
        TENSORS: buffer.getvalue(),
        STATE: json.dumps(state, indent=1).encode(),
    }


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Load all weights of a checkpoint into a model.

    Raises InputError for a damaged file, and if names or shapes differ.
    """
    weights = read_safetensors(checkpoint / WEIGHTS)
    own = model.state_dict()
    faults = [f"is missing: {name}" for name in own if name not in weights]
    faults += [f"is unknown to the model: {name}" for name in weights if name not in own]
    faults += [
        f"has shape {list(weights[name].shape)} and not {list(own[name].shape)}: {name}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if faults:
        raise InputError(
            f"{checkpoint}: the checkpoint is of another model than the recipe's: {len(faults)} weights differ, the first "
            f"{faults[0]}. Use the model of the run, or start another run."
        )
    model.load_state_dict(weights)


def load_saved(model: nn.Module, folder: Path) -> None:
    """Load the weights of a stock checkpoint of the same architecture. Raises InputError for others."""
    saved = weights_with_zero_adapters(model, load_model(str(folder))[0].state_dict())
    result = model.load_state_dict(saved, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]  # of live norms
    if missing or result.unexpected_keys:
        raise InputError(
            f"{folder}: not the weights of this model: {[*missing, *result.unexpected_keys][0]}. Restore the folder."
        )


def load_tensors(checkpoint: Path) -> dict[str, Any]:
    """Return the `tensors` of a checkpoint, on the CPU, without running code. Raises InputError."""
    file = checkpoint / TENSORS
    tensors = read_tensors(file)
    if not isinstance(tensors, dict):
        raise InputError(f"{file}: must be a dictionary, got {type(tensors).__name__}. {_RESTORE}")
    return tensors


def _check_tensors(file: Path, tensors: Mapping[str, Any], optimizer: Any) -> None:
    """Raise InputError for tensors of another kind, or moments of an optimizer that has other parameters."""
    faults = [
        f"{name} must be a {kind.__name__}, got {type(tensors.get(name)).__name__}. {_RESTORE}"
        for name, kind in _TENSOR_KINDS.items()
        if not isinstance(tensors.get(name), kind)
    ]
    if not faults and not _fit(tensors["optimizer"], optimizer):
        faults.append(
            "its moments are not those of the parameters that are trained. Resume with the model.freeze and the rates "
            "(optim) of the start of the run."
        )
    if faults:
        raise InputError([f"{file}: {fault}" for fault in faults])


def _fit(moments: Mapping[Any, Any], optimizer: Any) -> bool:
    """Return whether the state of an optimizer has the moments of its parameters, in their shapes."""
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    return all(
        index in parameters
        and isinstance(values, Mapping)
        and values.keys() >= _MOMENTS
        and all(isinstance(value, Tensor) for value in values.values())
        and all(value.shape in ((), parameters[index].shape) for value in values.values())
        for index, values in moments.items()
    )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return sentences on the facts that changed since a checkpoint: the vital ones, and the others.

    Classes and training data are vital: with others the weights have another meaning.
    """
    before, after = dict(_flat(then)), dict(_flat(now))
    changed = [key for key in (before | after) if before.get(key) != after.get(key) and not _is_ignored(key)]
    sentences = {key: _sentence(key, before.get(key), after.get(key)) for key in changed}
    vital = [sentence for key, sentence in sentences.items() if key.split(".")[0] in _VITAL_FACTS]
    return vital, [sentence for key, sentence in sentences.items() if key.split(".")[0] not in _VITAL_FACTS]


def fingerprint(split: Dataset) -> str:
    """Return a digest of a split's annotations: ids, sizes and objects in their order, without pixels."""
    digest = hashlib.sha256()
    for table in split.with_format("arrow").select_columns(["image_id", "width", "height", "objects"]).iter(1000):
        digest.update(json.dumps(table.to_pydict()).encode())
    return digest.hexdigest()


def _is_ignored(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _IGNORED_FACTS)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _sentence(key: str, before: Any, after: Any) -> str:
    if key == "data.fingerprint":
        return "the training data differ (images, sizes or objects)"
    return f"{key.removeprefix('recipe.')} was {_short(before)}, is {_short(after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_FACT_CHARACTERS else f"{text[:_MAX_FACT_CHARACTERS]}..."
