"""Load a model and its image processor from a folder, the Hub or the package."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_OBJECT_DETECTION_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    PreTrainedConfig,
    PreTrainedModel,
)

from detr_ft.errors import InputError
from detr_ft.models.config_values import check_config, check_memory, check_processor
from detr_ft.models.families import FAMILIES, Family, check_trainable, family_of_type, find_family
from detr_ft.models.label_map import LabelMap
from detr_ft.models.locate import is_on_hub, resolve
from detr_ft.models.metadata import check_metadata
from detr_ft.models.timm import (
    dilate,
    freeze_timm_norms,
    is_dilated,
    is_plain_resnet,
    native_config,
    native_weight_names,
    timm_available,
    uses_timm,
    without_legacy_fields,
)
from detr_ft.models.weights import read_weights
from detr_ft.run_directory import WEIGHTS
from detr_ft.utils.arguments import model_text
from detr_ft.utils.environment import warn_of_unused_gpu
from detr_ft.utils.hub import HTTP_ERRORS
from detr_ft.utils.progress import library_bars_hidden

logger = logging.getLogger(__name__)
# transformers warns at every load without torchvision that the processor uses PIL, as intended here.
logging.getLogger("transformers.models.auto.image_processing_auto").setLevel(logging.ERROR)

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
LOAD_ERRORS: tuple[type[BaseException], ...] = (
    OSError, ImportError, ValueError, RuntimeError, SafetensorError, *HTTP_ERRORS,
)  # fmt: skip
_ATTENTION = (None, "eager", "sdpa", "flex_attention")  # of torch
# With these keys transformers loads kernels, which are code, or a file with another name.
_UNSUPPORTED_KEYS = ("quantization_config", "transformers_weights")
# Raised by transformers for values of another kind in the files of a checkpoint.
_VALUE_ERRORS: tuple[type[BaseException], ...] = (
    ArithmeticError, AttributeError, LookupError, TypeError, RecursionError, StrictDataclassError,
)  # fmt: skip
_LOAD_OR_INPUT_ERRORS: tuple[type[BaseException], ...] = (InputError, *LOAD_ERRORS, *_VALUE_ERRORS)


def load_model(
    checkpoint: str | os.PathLike[str], revision: str | None = None, pickled: bool = False
) -> tuple[PreTrainedModel, Any]:
    """Load a model that recipes can train, and its image processor.

    `checkpoint` is a folder, `embedded:small` or a repository of the Hub (`owner/name`, with a revision). Weights are read
    from safetensors; `pickled` also accepts a `pytorch_model.bin` if there is nothing else. Raises InputError for a
    checkpoint that cannot be reached or read, whose family recipes cannot train, or whose weights are incomplete.
    """
    return _load(model_text(checkpoint, "checkpoint"), revision, pickled, trainable=True)


def load_detector(checkpoint: str | os.PathLike[str]) -> tuple[PreTrainedModel, Any]:
    """Load any object detector of transformers and its image processor, for evaluation.

    Raises InputError as `load_model` does; code in a repository is not run.
    """
    return _load(model_text(checkpoint, "checkpoint"), None, pickled=False, trainable=False)


def load_config_and_processor(checkpoint: str, revision: str | None = None) -> tuple[Any, Any]:
    """Load config and image processor of a checkpoint. Raises InputError as `load_model` does."""
    source = resolve(checkpoint)
    with _load_errors(checkpoint, _CONFIG):
        config = read_config(source, revision)
    with _load_errors(checkpoint, _PROCESSOR):
        return config, _processor(source, revision)


def empty_model(checkpoint: str) -> PreTrainedModel:
    """Return the model of a checkpoint's config without weights, on the meta device.

    Raises InputError as `load_model` does.
    """
    with _load_errors(checkpoint, _CONFIG):
        config = read_config(resolve(checkpoint))
        check_trainable(checkpoint, config)
        native = native_config(config) if uses_timm(config) and not timm_available() else None
        freeze_timm_norms(config)
        with torch.device("meta"):
            return AutoModelForObjectDetection.from_config(native or config)


def num_queries_of(checkpoint: str, revision: str | None = None) -> int | None:
    """Return the number of queries in a checkpoint's config.

    None if the config is not on this machine, or has no number of queries that can be changed.
    """
    try:
        source = resolve(checkpoint)
        _written_config(source, revision, local_files_only=True)
        config = AutoConfig.from_pretrained(source, revision=revision, local_files_only=True, trust_remote_code=False)
    except _LOAD_OR_INPUT_ERRORS:
        return None
    family = find_family(config)
    return family.num_queries(config) if family is not None and "num_queries" in family.supports else None


def local_family(checkpoint: str, revision: str | None = None) -> Family | None:
    """Return the family of a checkpoint.

    None if its config is not on this machine, or of a family without a description.
    """
    try:
        written = _written_config(resolve(checkpoint), revision, local_files_only=True)
    except _LOAD_OR_INPUT_ERRORS:
        return None
    return family_of_type(written.get("model_type"))


def commit_of(checkpoint: str, revision: str | None = None) -> str | None:
    """Return the commit of a repository of the Hub, None for local files.

    If the Hub is unreachable it is that of the cached copy. Raises InputError as `load_model` does.
    """
    if not is_on_hub(checkpoint):
        return None
    with _load_errors(checkpoint, _CONFIG):
        # The cached file is in snapshots/COMMIT.
        return Path(hf_hub_download(resolve(checkpoint), "config.json", revision=revision)).parent.name


def describe_load_error(checkpoint: str, error: BaseException, file: str = "") -> str:
    """Return a message for an error of transformers, timm or the Hub's client while it read a file."""
    text = str(error)
    if isinstance(error, HTTP_ERRORS) or "connect" in text or "offline" in text.lower():
        return (
            f"{checkpoint}: the Hub cannot be reached and the model is not in the local cache. "
            "Check the network, or give the folder of a checkpoint."
        )
    if "trust_remote_code" in text:
        return (
            f"{checkpoint}: needs code that is beside it (auto_map in its JSON files), which is never run. "
            "Use a checkpoint of an architecture of transformers."
        )
    if "timm" in text:
        return (
            f"{checkpoint}: its backbone needs timm, which cannot be imported here. "
            "Run: pip install timm torchvision, or use a checkpoint with a plain ResNet."
        )
    return f"{checkpoint}: {file}: {first_line(error)}" if file else f"{checkpoint}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def _load(checkpoint: str, revision: str | None, pickled: bool, trainable: bool) -> tuple[Any, Any]:
    warn_of_unused_gpu()
    source = resolve(checkpoint)
    revision = commit_of(checkpoint, revision)  # all files are of one commit
    with _load_errors(checkpoint, _CONFIG):
        config = read_config(source, revision)
        if trainable:
            check_trainable(checkpoint, config)
        native = native_config(config) if uses_timm(config) and not timm_available() else None
        freeze_timm_norms(config)
    with _load_errors(checkpoint, f"{_CONFIG} or {WEIGHTS}"):
        weights = read_weights(source, revision, pickled)
        _check_memory(checkpoint, native or config, weights)
        model, loading = _model_class(checkpoint, config).from_pretrained(
            None,  # transformers would load other files of the folder, as adapters
            config=native or config,
            state_dict=weights,
            ignore_mismatched_sizes=True,  # reported by _check_weights
            output_loading_info=True,
            key_mapping=native_weight_names(config) if native else None,
        )
        model.name_or_path = model.config.name_or_path = source
    with _load_errors(checkpoint, _PROCESSOR):
        processor = _processor(source, revision)
    _check_weights(checkpoint, loading)
    check_metadata(model.config, checkpoint)
    if native:
        # Save under the native names: transformers would write the names that it read.
        model.__dict__.pop("_weight_conversions", None)
    family = find_family(model)
    if family is not None and "recipes" in family.supports:
        LabelMap.of(model, checkpoint)
        if is_plain_resnet(model.config) and is_dilated(model.config):
            dilate(family.module(model, family.backbone))
    return model, processor


@contextmanager
def _load_errors(checkpoint: str, file: str) -> Iterator[None]:
    """Raise errors of loading a file as InputError, and hide the progress bars of the libraries."""
    try:
        with library_bars_hidden():
            yield
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError) as error:
        raise InputError(f"{checkpoint}: no such model on the Hub, or no access to it: {first_line(error)}") from error
    except RemoteEntryNotFoundError as error:
        raise InputError(f"{checkpoint}: has no config.json on the Hub. Give a model of transformers.") from error
    except _VALUE_ERRORS as error:
        raise InputError(
            f"{checkpoint}: {file}: a value of another kind than transformers writes ({_in_one_line(error)}). Restore the file."
        ) from error
    except LOAD_ERRORS as error:
        raise InputError(describe_load_error(checkpoint, error, file)) from error


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _model_class(checkpoint: str, config: Any) -> Any:
    """Return the class of a detector. Raises InputError for a config of another task."""
    if type(config) not in MODEL_FOR_OBJECT_DETECTION_MAPPING:
        raise InputError(
            f"{checkpoint}: a {config.model_type!r} model is not supported: it is no object detector of transformers. "
            "Give another checkpoint."
        )
    return MODEL_FOR_OBJECT_DETECTION_MAPPING[type(config)]


def read_config(source: str, revision: str | None = None) -> Any:
    """Return the config of a checkpoint. Raises InputError if it names code of the Hub, or other weights."""
    written = _written_config(source, revision)
    kernels = sorted(set(_kernels(written)))
    if kernels:
        raise InputError(
            f"{source}: attn_implementation {kernels[0]} is code of the Hub or of another package, which is never run. "
            "Write eager or sdpa into its config.json"
        )
    for key in _UNSUPPORTED_KEYS:
        if written.get(key):
            raise InputError(
                f"{source}: {key} in its config.json is not supported. Give a checkpoint in full precision with its "
                "weights in model.safetensors."
            )
    with_backbone = {family.model_type for family in FAMILIES if family.backbone is not None}
    if written.get("model_type") in with_backbone and (current := without_legacy_fields(written)) != written:
        return AutoConfig.for_model(**current)
    return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)


def _written_config(source: str, revision: str | None, **options: bool) -> Mapping[str, Any]:
    written, _ = PreTrainedConfig.get_config_dict(source, revision=revision, **options)
    return check_config(source, written)


def _kernels(config: object) -> Iterator[str]:
    """Yield attention implementations that are not those of torch, in a config and those in it.

    With the package `kernels`, transformers replaces also names of other packages by repositories.
    """
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if key.endswith("attn_implementation"):
            names = value.values() if isinstance(value, Mapping) else [value]
            yield from (str(name) for name in names if name not in _ATTENTION)
        else:
            yield from _kernels(value)


def _processor(source: str, revision: str | None) -> Any:
    processor = AutoImageProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
    check_processor(source, processor)
    return processor


def _check_memory(checkpoint: str, config: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise InputError for a config that describes a far larger model than the weights are."""
    with torch.device("meta"):
        model = AutoModelForObjectDetection.from_config(config)
    check_memory(
        checkpoint, *(sum(weight.numel() for weight in part) for part in (model.parameters(), weights.values()))
    )


def _check_weights(checkpoint: str, loading: Mapping[str, Any]) -> None:
    """Raise InputError unless the weights of a checkpoint are those of its config, in name and shape."""
    misfits = sorted(loading["mismatched_keys"])
    missing = sorted(loading["missing_keys"])
    surplus = sorted(name for name in loading["unexpected_keys"] if not name.endswith("num_batches_tracked"))
    faults = [
        f"{name} is {list(actual)} in the checkpoint and {list(expected)} by its config"
        for name, actual, expected in misfits
    ]
    if missing:
        faults.append(f"{len(missing)} weights are missing from the checkpoint, the first is {missing[0]}")
    if surplus:
        faults.append(f"{len(surplus)} weights are not in the model, the first is {surplus[0]}")
    if faults:
        faults[-1] += ". The checkpoint is incomplete, or its config.json belongs to another architecture"
        raise InputError([f"{checkpoint}: {fault}." for fault in faults])
