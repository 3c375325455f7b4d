"""Which parts of a model train: exactly the declared ones, and a table that says so."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from detr_ft.errors import InputError
from detr_ft.models.families.family import Detr

_NATIVE = r"^model\.backbone\.(?:conv_encoder\.)?model\.(embedder|encoder\.stages\.(?P<stage>\d+))\."
_TIMM = r"^model\.backbone\.(?:conv_encoder\.)?model\.(conv1|bn1|layer(?P<layer>\d+))\b"
_ELSEWHERE = {
    "model.backbone.": "backbone",
    "model.input_projection.": "input_projection",
    "model.query_position_embeddings.": "queries",
    "model.encoder.": "encoder",
    "model.decoder.": "decoder",
    "class_labels_classifier.": "class_head",
    "bbox_predictor.": "box_head",
}


def part_of(name: str) -> str:
    """The part that a parameter belongs to: `backbone.stem`, `backbone.stage1`, ..., `encoder`, `class_head`, ..."""
    if match := re.match(_NATIVE, name):
        return "backbone.stem" if match["stage"] is None else f"backbone.stage{int(match['stage']) + 1}"
    if match := re.match(_TIMM, name):
        return "backbone.stem" if match["layer"] is None else f"backbone.stage{match['layer']}"
    for prefix, part in _ELSEWHERE.items():
        if name.startswith(prefix):
            return part
    return "other"


def set_trainable(model: Detr, freeze: Sequence[str]) -> None:
    """Train every parameter but those of the frozen parts; `backbone` stands for all of its parts.

    transformers freezes the whole of a native ResNet backbone without a word, so this is said for every parameter.
    Raises InputError for a part that the model does not have.
    """
    parts = {name: part_of(name) for name, _ in model.named_parameters()}
    known = sorted({*parts.values(), *(part.split(".")[0] for part in parts.values())})
    unknown = [part for part in freeze if part not in known]
    if unknown:
        raise InputError(
            [f"model.freeze: the model has no part {part!r}; it has {', '.join(known)}" for part in unknown]
        )
    trains = {
        name: not any(part == frozen or part.startswith(frozen + ".") for frozen in freeze)
        for name, part in parts.items()
    }
    if not any(trains.values()):
        raise InputError("model.freeze: every part is frozen, so there is nothing to train")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains[name])


def trainable_counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """For each part, how many of its parameters train and how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        training, total = counts.get(part_of(name), (0, 0))
        counts[part_of(name)] = (training + parameter.numel() * parameter.requires_grad, total + parameter.numel())
    return counts


def live_norms(module: nn.Module) -> None:
    """Put a learning BatchNorm2d in the place of every frozen one, for training a backbone from a random start.

    From a random start the frozen norms are identities, and the backbone would train without any normalisation.
    """
    for name, child in module.named_children():
        if isinstance(child, DetrFrozenBatchNorm2d):
            live = nn.BatchNorm2d(len(child.weight))
            live.load_state_dict({**child.state_dict(), "num_batches_tracked": live.num_batches_tracked})
            setattr(module, name, live.to(child.weight.device))
        else:
            live_norms(child)


def frozen_norms(module: nn.Module) -> None:
    """The reverse of `live_norms`: what was learned stays, as the constants that a stock DETR holds."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = DetrFrozenBatchNorm2d(child.num_features)
            frozen.load_state_dict(
                {key: value for key, value in child.state_dict().items() if key != "num_batches_tracked"}
            )
            setattr(module, name, frozen.to(child.weight.device))
        else:
            frozen_norms(child)
