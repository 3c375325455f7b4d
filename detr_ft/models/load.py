"""Load a DETR checkpoint, or build one from a description of its architecture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    PreTrainedConfig,
    PreTrainedModel,
)

from detr_ft.errors import InputError
from detr_ft.models.checkpoint_source import _LOAD_ERRORS, _explained, resolve
from detr_ft.models.families.family import Detr, is_detr, refuse_others
from detr_ft.models.label_map import LabelMap
from detr_ft.models.metadata import refuse_damaged
from detr_ft.models.timm import (
    dilate,
    is_dilated,
    is_plain_resnet,
    keep_activations,
    natively,
    timm_works,
    to_native,
    wants_timm,
    without_old_fields,
)

logger = logging.getLogger(__name__)
# Says of every release without torchvision that the processor works on PIL images: true, intended, and no news.
logging.getLogger("transformers.models.auto.image_processing_auto").setLevel(logging.ERROR)

_WITH_BACKBONE = {"detr", "table-transformer"}
_NOT_AT_HAND: tuple[type[BaseException], ...] = (InputError, *_LOAD_ERRORS)


def load_model(checkpoint: str, revision: str | None = None, pickled: bool = False) -> tuple[Detr, Any]:
    """The model and its image processor, from a folder, `embedded:small` or the Hub (`owner/name`, with a revision).

    Weights are read from safetensors; `pickled` takes those of a `pytorch_model.bin` too, where there is nothing else.
    Raises InputError for a checkpoint that can't be found, reached or read, that is no DETR or Table Transformer, or whose weights are not whole.
    """
    return _load(checkpoint, revision, None if pickled else True, trained=True)


def load_detector(checkpoint: str) -> tuple[PreTrainedModel, Any]:
    """Any model that transformers loads as an object detector, to be evaluated: DETR, its sisters, YOLOS and others.

    Raises InputError as `load_model` does; no code that a repository brings is run.
    """
    return _load(checkpoint, None, True, trained=False)


def _load(checkpoint: str, revision: str | None, safetensors: bool | None, trained: bool) -> tuple[Any, Any]:
    source = resolve(checkpoint)
    with _explained(checkpoint):
        config = _config(source, revision)
        if trained:
            refuse_others(checkpoint, config)
        native = natively(config) if wants_timm(config) and not timm_works() else None
        keep_activations(config)
        model, loading = AutoModelForObjectDetection.from_pretrained(
            source,
            config=native or config,
            revision=revision,
            use_safetensors=safetensors,
            ignore_mismatched_sizes=True,  # told below, by name
            output_loading_info=True,
            key_mapping=to_native(config) if native else None,
        )
        processor = AutoImageProcessor.from_pretrained(source, revision=revision)
    _refuse_surprises(checkpoint, loading)
    refuse_damaged(model.config, checkpoint)
    if is_detr(model.config):
        LabelMap.of(model, checkpoint)
    if native:
        # What is saved has the native names: transformers would write those that it read.
        model.__dict__.pop("_weight_conversions", None)
    if is_detr(model.config) and is_plain_resnet(model.config) and is_dilated(model.config):
        dilate(model.model.backbone)
    return model, processor


def load_config_and_processor(checkpoint: str, revision: str | None = None) -> tuple[Any, Any]:
    """The config and the image processor of a checkpoint, without its weights; raises InputError as `load_model` does."""
    source = resolve(checkpoint)
    with _explained(checkpoint):
        return _config(source, revision), AutoImageProcessor.from_pretrained(source, revision=revision)


def _refuse_surprises(checkpoint: str, loading: Mapping[str, Any]) -> None:
    """Every weight has its place and its shape, or it isn't the model that its config says."""
    misfits = sorted(loading["mismatched_keys"])
    missing = sorted(loading["missing_keys"])
    surplus = sorted(name for name in loading["unexpected_keys"] if not name.endswith("num_batches_tracked"))
    faults = [
        f"{name} is {list(here)} in the checkpoint and {list(told)} by its config" for name, here, told in misfits
    ]
    if missing:
        faults.append(f"{len(missing)} weights are missing from the checkpoint, the first is {missing[0]}")
    if surplus:
        faults.append(f"{len(surplus)} of its weights have no place in the model, the first is {surplus[0]}")
    if faults:
        faults[-1] += "; it is incomplete, or of another architecture than its config.json says"
        raise InputError([f"{checkpoint}: {fault}" for fault in faults])


def _config(source: str, revision: str | None) -> Any:
    written, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    if written.get("model_type") in _WITH_BACKBONE and (mended := without_old_fields(written)) != written:
        return AutoConfig.for_model(**mended)
    return AutoConfig.from_pretrained(source, revision=revision)


def queries_of(checkpoint: str, revision: str | None = None) -> int | None:
    """How many queries a checkpoint has, by its config alone; None where that isn't on this machine, or is no DETR's."""
    try:
        config = AutoConfig.from_pretrained(resolve(checkpoint), revision=revision, local_files_only=True)
    except _NOT_AT_HAND:
        return None
    return config.num_queries if is_detr(config) else None
