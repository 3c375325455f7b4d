"""What a run has to remember to go on bit for bit, as the files of a checkpoint.

A checkpoint holds no random state: what is random in a step is drawn from (seed, step, process), an augmentation from
(seed, epoch, index), and the order of images from (seed, epoch). Its folder loads in transformers as it is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from detr_ft.errors import InputError
from detr_ft.models.load import load_model
from detr_ft.models.lora import weights_with_zero_adapters

STATE, WEIGHTS, _TENSORS = "state.json", "model.safetensors", "training.pt"


@dataclass
class Progress:
    """Where a run is: `epoch` and `place` in it, from 0, are those of the next step."""

    step: int = 0
    epoch: int = 0
    place: int = 0
    images_a_step: int = 0
    evaluated: int = 0  # the step of the last evaluation
    rows: int = 0  # of the log
    seconds: float = 0.0

    @classmethod
    def read(cls, checkpoint: Path) -> Progress:
        """That of a checkpoint."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in read_state(checkpoint)["progress"].items() if name in known})


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: `progress`, `facts` of the run, and what else was given to `files_of`."""
    state: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return state


def files_of(model: Any, processor: Any, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint: weights under the model's own names, `tensors` beside them, `state` as JSON."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    held = io.BytesIO()
    torch.save(dict(tensors), held)
    return {
        "config.json": model.config.to_json_string(use_diff=True).encode(),
        "preprocessor_config.json": processor.to_json_string().encode(),
        WEIGHTS: save_safetensors(weights, metadata={"format": "pt"}),
        _TENSORS: held.getvalue(),
        STATE: json.dumps({name: _plain(value) for name, value in state.items()}, indent=1).encode(),
    }


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint, every one of them. Raises InputError where one is missing or too many."""
    held = load_safetensors((checkpoint / WEIGHTS).read_bytes())
    own = model.state_dict()
    faults = [f"is missing: {name}" for name in own if name not in held]
    faults += [f"is unknown to the model: {name}" for name in held if name not in own]
    faults += [
        f"has shape {list(held[name].shape)} and not {list(own[name].shape)}: {name}"
        for name in own
        if name in held and held[name].shape != own[name].shape
    ]
    if faults:
        raise InputError(
            f"{checkpoint} is of another model than the recipe's: {len(faults)} weights differ, the first {faults[0]}"
        )
    model.load_state_dict(held)


def load_saved(model: nn.Module, folder: Path) -> None:
    """Give a model of the same architecture the weights of a stock checkpoint, every one of them."""
    saved = weights_with_zero_adapters(model, load_model(str(folder))[0].state_dict())
    result = model.load_state_dict(saved, strict=False)
    missing = [name for name in result.missing_keys if not name.endswith("num_batches_tracked")]  # norms that learn
    if missing or result.unexpected_keys:
        raise InputError(f"{folder} does not hold the weights of this model: {[*missing, *result.unexpected_keys][0]}")


def load_tensors(checkpoint: Path) -> dict[str, Any]:
    """The `tensors` of a checkpoint, on the CPU; no code in the file is run."""
    held: dict[str, Any] = torch.load(checkpoint / _TENSORS, map_location="cpu", weights_only=True)
    return held


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Progress) else value
