"""Save weights and config as plain transformers loads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedModel

from detr_ft.models.lora import merged_weights
from detr_ft.models.timm import is_dilated, is_plain_resnet, to_timm_layout
from detr_ft.run_directory import CHECKPOINT_STATE, PARTIAL, WEIGHTS, RunDirectory
from detr_ft.utils.complete_folder import replacing
from detr_ft.utils.files import unwritable
from detr_ft.utils.progress import library_bars_hidden


def save_as_stock(model: PreTrainedModel, folder: Path) -> None:
    """Write `config.json` and safetensors from which `from_pretrained` loads the same function.

    Adapters are merged. Norms that train are saved as the constants of frozen norms. A dilated ResNet is saved under
    timm's names: transformers implements dilation only there, and would silently load a native one without it.
    """
    weights = {name: value for name, value in merged_weights(model).items() if not name.endswith("num_batches_tracked")}
    if not (is_plain_resnet(model.config) and is_dilated(model.config)):
        with library_bars_hidden():
            model.save_pretrained(folder, state_dict=weights)
        return
    config, weights = to_timm_layout(model.config, weights)
    config.architectures = [type(model).__name__]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def save_model(run: RunDirectory, model: PreTrainedModel, processor: Any) -> Path:
    """Save model and processor at the top of the run, completely or not at all, and return its path.

    The files are first written to `.partial`, so that a failure leaves the previous ones. Raises InputError.
    """
    partial = run.path / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _save(model, processor, partial)
        names = sorted(file.name for file in partial.iterdir())
        for name in names:
            (partial / name).replace(run.path / name)
        partial.rmdir()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise unwritable(run.path, error) from error
    run.record(names)
    return run.path


def save_model_folder(folder: Path, model: PreTrainedModel, processor: Any, state: Mapping[str, Any]) -> Path:
    """Save model, processor and `state` in a folder of their own, with digests, and return its path.

    `state` becomes its `state.json`. An earlier folder is replaced as a whole. Raises InputError.
    """
    try:
        with replacing(folder) as partial:
            _save(model, processor, partial)
            (partial / CHECKPOINT_STATE).write_text(json.dumps(state), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error
    return folder


def _save(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    save_as_stock(model, folder)
    processor.save_pretrained(folder)
