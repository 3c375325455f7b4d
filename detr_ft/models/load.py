"""Load a DETR checkpoint, or build one from a description of its architecture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoConfig, AutoImageProcessor, DetrConfig, DetrForObjectDetection, DetrImageProcessor

from detr_ft.errors import UserError
from detr_ft.places import EMBEDDED, embedded_checkpoint

logger = logging.getLogger(__name__)
# Says of every release without torchvision that the processor works on PIL images: true, intended, and no news.
logging.getLogger("transformers.models.auto.image_processing_auto").setLevel(logging.ERROR)


def load_model(checkpoint: str, revision: str | None = None) -> tuple[DetrForObjectDetection, Any]:
    """The model and its image processor, from a folder, `embedded:small` or the Hub (`owner/name`, with a revision).

    Raises UserError for a checkpoint that can't be found, reached or read, that is no DETR, or whose weights are not whole.
    """
    source = _resolve(checkpoint)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        if not isinstance(config, DetrConfig):
            raise UserError(
                f"{checkpoint}: this is a {config.model_type!r} model; detr_ft fine-tunes DETR "
                "(DetrForObjectDetection), for example facebook/detr-resnet-50"
            )
        model, loading = DetrForObjectDetection.from_pretrained(
            source, config=config, revision=revision, use_safetensors=True, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(source, revision=revision)
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError) as error:
        raise UserError(
            f"{checkpoint}: the Hub has no such model, or you have no access: {_first_line(error)}"
        ) from error
    except (OSError, HfHubHTTPError, ImportError, ValueError) as error:
        raise UserError(_explain(checkpoint, error)) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UserError(
            f"{checkpoint}: {len(missing)} weights are missing from the checkpoint, the first is {missing[0]}; "
            "it is incomplete, or of another architecture than its config.json says"
        )
    return model, processor


def build_model(
    architecture: Mapping[str, Any], names: list[str], longest_edge: int
) -> tuple[DetrForObjectDetection, Any]:
    """A model of random weights with a native backbone, for the classes `names`, and its image processor.

    `architecture` holds what `DetrConfig` takes; its `backbone_config` names a `model_type`. Raises UserError for what
    transformers refuses.
    """
    labels = dict(enumerate(names))
    try:
        config = DetrConfig(**architecture, id2label=labels, label2id={name: index for index, name in labels.items()})
        model = DetrForObjectDetection(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"model.architecture: {_first_line(error)}") from error
    return model, DetrImageProcessor(size={"max_height": longest_edge, "max_width": longest_edge})


def _resolve(checkpoint: str) -> str:
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
    if folder.exists() or checkpoint.count("/") != 1 or checkpoint.startswith((".", "~", "/")):
        raise UserError(f"{checkpoint}: there is no such folder (a model on the Hub is written owner/name)")
    return checkpoint


def _explain(checkpoint: str, error: Exception) -> str:
    text = str(error)
    if "connect" in text or "offline" in text.lower() or "resolve" in text:
        return (
            f"{checkpoint}: the Hub can't be reached and the model is not in the local cache; "
            "check the network, or give the folder of a checkpoint"
        )
    if "timm" in text:
        return f"{checkpoint}: its backbone comes from timm, which is not installed; for facebook/detr-* give revision: no_timm"
    return f"{checkpoint}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
