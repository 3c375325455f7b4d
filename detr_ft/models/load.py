"""Load a DETR checkpoint, or build one from a description of its architecture."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)

from detr_ft.errors import UserError
from detr_ft.models.family import Detr, is_detr, refuse_others
from detr_ft.models.labels import LabelMap
from detr_ft.models.own_block import refuse_damaged
from detr_ft.models.timm_layout import (
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
from detr_ft.utils.assets import EMBEDDED, embedded_checkpoint

logger = logging.getLogger(__name__)
# Says of every release without torchvision that the processor works on PIL images: true, intended, and no news.
logging.getLogger("transformers.models.auto.image_processing_auto").setLevel(logging.ERROR)

# The Hub's client raises its HTTP library's errors, and which library that is depends on its version: they are the bases
# of its own error.
_NETWORK_ERRORS = tuple(base for base in HfHubHTTPError.__bases__ if base is not OSError)
_LOAD_ERRORS: tuple[type[BaseException], ...] = (
    OSError, ImportError, ValueError, RuntimeError, SafetensorError, *_NETWORK_ERRORS,
)  # fmt: skip
_WITH_BACKBONE = {"detr", "table-transformer"}
_NOT_AT_HAND: tuple[type[BaseException], ...] = (UserError, *_LOAD_ERRORS)


def load_model(checkpoint: str, revision: str | None = None, pickled: bool = False) -> tuple[Detr, Any]:
    """The model and its image processor, from a folder, `embedded:small` or the Hub (`owner/name`, with a revision).

    Weights are read from safetensors; `pickled` takes those of a `pytorch_model.bin` too, where there is nothing else.
    Raises UserError for a checkpoint that can't be found, reached or read, that is no DETR or Table Transformer, or whose weights are not whole.
    """
    return _load(checkpoint, revision, None if pickled else True, trained=True)


def load_detector(checkpoint: str) -> tuple[PreTrainedModel, Any]:
    """Any model that transformers loads as an object detector, to be evaluated: DETR, its sisters, YOLOS and others.

    Raises UserError as `load_model` does; no code that a repository brings is run.
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


def load_config_and_processor(checkpoint: str) -> tuple[Any, Any]:
    """The config and the image processor of a checkpoint, without its weights; raises UserError as `load_model` does."""
    source = resolve(checkpoint)
    with _explained(checkpoint):
        return _config(source, None), AutoImageProcessor.from_pretrained(source)


def commit_of(checkpoint: str, revision: str | None = None) -> str | None:
    """The commit that a name on the Hub stands for now, or in the cache where the Hub is out of reach; None of what lies here.

    Raises UserError as `load_model` does.
    """
    if not on_the_hub(checkpoint):
        return None
    with _explained(checkpoint):
        # It lies in snapshots/COMMIT of the cache.
        return Path(hf_hub_download(resolve(checkpoint), "config.json", revision=revision)).parent.name


@contextmanager
def _explained(checkpoint: str) -> Iterator[None]:
    """What loading raises, as a UserError."""
    try:
        yield
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError) as error:
        raise UserError(
            f"{checkpoint}: the Hub has no such model, or you have no access: {_first_line(error)}"
        ) from error
    except _LOAD_ERRORS as error:
        raise UserError(_explain(checkpoint, error)) from error


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
        raise UserError([f"{checkpoint}: {fault}" for fault in faults])


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


def on_the_hub(checkpoint: str) -> bool:
    """Whether a checkpoint that loads is a repository of the Hub, and no folder of this machine."""
    return not checkpoint.startswith("embedded:") and not Path(checkpoint).is_dir()


def build_model(
    architecture: Mapping[str, Any], names: list[str], longest_edge: int, backbone: str | None = None
) -> tuple[DetrForObjectDetection, Any]:
    """A model of random weights with a native backbone, for the classes `names`; its processor pads images to a square.

    `architecture` holds what `DetrConfig` takes; its `backbone_config` names a `model_type`. `backbone` is a checkpoint
    whose weights the backbone starts from. Raises UserError for what transformers refuses, and for a backbone that does
    not fit whole.
    """
    # transformers takes a misspelt field without a word.
    known = DetrConfig(backbone_config={"model_type": "resnet"}).to_dict()
    unknown = sorted(set(architecture) - set(known))
    if unknown:
        raise UserError([f"model.architecture: DetrConfig has no field {key!r}" for key in unknown])
    labels = dict(enumerate(names))
    try:
        config = DetrConfig(**architecture, id2label=labels, label2id={name: index for index, name in labels.items()})
        keep_activations(config)
        model = DetrForObjectDetection(config)
    except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise UserError(f"model.architecture: {_first_line(error)}") from error
    _original_start(model)
    if backbone is not None:
        _load_backbone(model, backbone)
    # Where a small model is to learn places from the start, the border of what it sees had better not move.
    square = {"height": longest_edge, "width": longest_edge}
    return model, DetrImageProcessor(size={"max_height": longest_edge, "max_width": longest_edge}, pad_size=square)


def _original_start(model: DetrForObjectDetection) -> None:
    """Random weights as the authors draw them (facebookresearch/detr, `Transformer._reset_parameters`).

    transformers draws matrices and queries with a deviation of 0.02, which is right for what will be overwritten by a
    checkpoint; from such a start a small DETR learns slowly.
    """
    for parameter in (*model.model.encoder.parameters(), *model.model.decoder.parameters()):
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
    nn.init.normal_(model.model.query_position_embeddings.weight)
    for module in (model.model.input_projection, model.class_labels_classifier, *model.bbox_predictor.layers):
        module.reset_parameters()


def _load_backbone(model: DetrForObjectDetection, checkpoint: str) -> None:
    target = model.model.backbone.model
    try:
        # The class by name: AutoBackbone asks the Hub even for a folder, and takes what the Hub lacks for timm's.
        state = type(target).from_pretrained(checkpoint, use_safetensors=True).state_dict()
    except _LOAD_ERRORS as error:
        raise UserError(f"model.backbone: {_explain(checkpoint, error)}") from error
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"model.backbone: {checkpoint} does not fit model.architecture.backbone_config: {_first_line(error)}"
        ) from error


def resolve(checkpoint: str) -> str:
    """Where transformers finds a checkpoint: a folder, or a name on the Hub. Raises UserError for a folder that isn't there or is no checkpoint."""
    if checkpoint.startswith("embedded:"):
        name = checkpoint.removeprefix("embedded:")
        if name not in EMBEDDED:
            raise UserError(f"{checkpoint}: there is no such embedded checkpoint; there is {', '.join(EMBEDDED)}")
        return str(embedded_checkpoint(name))
    folder = Path(checkpoint)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{checkpoint}: this folder holds no config.json, so it is no checkpoint")
        return checkpoint
    # `runs/mine` could be on the Hub too, but where there is a folder `runs` nobody means that.
    if (
        folder.exists()
        or checkpoint.count("/") != 1
        or checkpoint.startswith((".", "~", "/"))
        or folder.parent.is_dir()
    ):
        raise UserError(
            f"{checkpoint}: there is no such folder{_neighbours(folder)} (a model on the Hub is written owner/name)"
        )
    return checkpoint


def _neighbours(folder: Path) -> str:
    there = sorted(one.name for one in folder.parent.iterdir() if one.is_dir()) if folder.parent.is_dir() else []
    close = difflib.get_close_matches(folder.name, there, n=1)
    return f"; did you mean {folder.parent / close[0]}?" if close else ""


def _explain(checkpoint: str, error: BaseException) -> str:
    text = str(error)
    if isinstance(error, _NETWORK_ERRORS) or "connect" in text or "offline" in text.lower():
        return (
            f"{checkpoint}: the Hub can't be reached and the model is not in the local cache; "
            "check the network, or give the folder of a checkpoint"
        )
    if "file named model.safetensors" in text:
        return (
            f"{checkpoint}: there is no model.safetensors; if its weights are pickled (pytorch_model.bin) and you trust "
            "them, a recipe says so with model.pickled: true"
        )
    if "timm" in text:
        return (
            f"{checkpoint}: its backbone comes from timm, is no plain ResNet, and timm doesn't work here: "
            "pip install timm torchvision, or take a checkpoint with a ResNet"
        )
    return f"{checkpoint}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
