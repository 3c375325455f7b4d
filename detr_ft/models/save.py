"""Save weights and config as plain transformers loads them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedModel

from detr_ft.models.lora import merged_weights
from detr_ft.models.timm import is_dilated, is_plain_resnet, to_timm_layout
from detr_ft.run_directory import PARTIAL, WEIGHTS, RunDirectory
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


def save_model(run: RunDirectory, model: PreTrainedModel, processor: Any, folder: str = "") -> Path:
    """Save model and processor in a folder of the run, completely or not at all, and return its path.

    The files are first written to `.partial`, so that a failure leaves the previous ones. Raises InputError.
    """
    target = run.path / folder
    partial = run.path / PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_as_stock(model, partial)
        processor.save_pretrained(partial)
        target.mkdir(parents=True, exist_ok=True)
        names = sorted(file.name for file in partial.iterdir())
        for name in names:
            (partial / name).replace(target / name)
        partial.rmdir()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise unwritable(target, error) from error
    if target == run.path:
        run.record(names)
    return target
