"""Choose the parts of a model that train, and count their parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from detr_ft.errors import InputError
from detr_ft.models.families import family_of


def set_trainable(model: PreTrainedModel, freeze: Sequence[str]) -> None:
    """Train every parameter except those of the frozen parts; `backbone` includes all of its stages.

    Every parameter is set, because transformers silently freezes the whole of a native ResNet backbone. Raises InputError
    for a part that the model does not have.
    """
    parts = check_parts(model, freeze)
    trains = {
        name: not any(part == frozen or part.startswith(frozen + ".") for frozen in freeze)
        for name, part in parts.items()
    }
    if not any(trains.values()):
        raise InputError("model.freeze: every part is frozen. Remove at least one part from the list.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trains[name])


def check_parts(model: PreTrainedModel, freeze: Sequence[str]) -> dict[str, str]:
    """Return the part of each parameter. Raises InputError for frozen parts that the model lacks."""
    family = family_of(model)
    parts = {name: family.part_of(name).name for name, _ in model.named_parameters()}
    known = sorted({*parts.values(), *(part.split(".")[0] for part in parts.values())})
    unknown = [part for part in freeze if part not in known]
    if unknown:
        raise InputError([f"model.freeze: no part {part!r} in the model. Use {', '.join(known)}." for part in unknown])
    return parts


def trainable_counts(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """Return the number of parameters that train, and of all parameters, for each part."""
    family = family_of(model)
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        part = family.part_of(name).name
        training, total = counts.get(part, (0, 0))
        counts[part] = (training + parameter.numel() * parameter.requires_grad, total + parameter.numel())
    return counts


def live_norms(module: nn.Module) -> None:
    """Replace every frozen norm of DETR by a BatchNorm2d that trains, in place.

    With random weights the frozen norms are identities, so the backbone would train without any normalization.
    """
    for name, child in module.named_children():
        if isinstance(child, DetrFrozenBatchNorm2d):
            live = nn.BatchNorm2d(len(child.weight))
            live.load_state_dict({**child.state_dict(), "num_batches_tracked": live.num_batches_tracked})
            setattr(module, name, live.to(child.weight.device))
        else:
            live_norms(child)


def frozen_norms(module: nn.Module) -> None:
    """Replace every BatchNorm2d by a frozen norm of the same statistics, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = DetrFrozenBatchNorm2d(child.num_features)
            frozen.load_state_dict(
                {key: value for key, value in child.state_dict().items() if key != "num_batches_tracked"}
            )
            setattr(module, name, frozen.to(child.weight.device))
        else:
            frozen_norms(child)
