"""Attach a criterion to a stock model in place of its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from detr_ft.criterion import check_activation
from detr_ft.models.families import family_of
from detr_ft.models.families.base import LossInputs
from detr_ft.models.label_map import check_class_head
from detr_ft.structures import Predictions, StepTotals, Targets
from detr_ft.utils.collectives import has_process_group, sum_over_processes, world_size

Criterion = Callable[[Predictions, Targets], tuple[Tensor, dict[str, Tensor]]]


class AttachedCriterion:
    """The `loss_function` of a model, computed by a criterion.

    Terms are normalized by the batch of all processes, so that every term equals that of one process with all images, or
    within `step_totals` by those. `last` has the latest arguments of the criterion, without gradient, for `find_fault`.
    """

    # Not an nn.Module: a model would register it as a submodule and continue to use the stock loss.
    def __init__(self, model: PreTrainedModel, criterion: Criterion) -> None:
        self.criterion = criterion
        self._totals: StepTotals | None = None
        self.last: tuple[Predictions, Targets] | None = None
        self.family = family_of(model)
        self._model = model
        self._stock_loss = model.loss_function
        self._recorded: list[Any] = []
        modules = self.family.recorded_modules(model)
        self._hooks = [module.register_forward_hook(self._record) for module in modules]
        if self._hooks:  # the base model, because CUDA graphs run it without the heads
            self._hooks.append(model.base_model.register_forward_pre_hook(self._clear))

    def __call__(
        self,
        logits: Tensor,
        labels: Sequence[Mapping[str, Tensor]],
        device: torch.device,
        pred_boxes: Tensor,
        config: Any,
        outputs_class: Tensor | None = None,
        outputs_coord: Tensor | None = None,
        **extras: Any,  # further arguments of a family
    ) -> tuple[Tensor, dict[str, Tensor], list[dict[str, Tensor]]]:
        """Return `(loss, loss_dict, auxiliary_outputs)`; called by transformers."""
        if self._hooks and (outputs_class is None or outputs_coord is None):
            outputs_class, outputs_coord = self.layer_outputs()
        predictions = self.family.predictions(LossInputs(logits, pred_boxes, outputs_class, outputs_coord, extras))
        loss, values = self.score(predictions, labels)
        auxiliary = [
            {"logits": row, "pred_boxes": boxes}
            for row, boxes in zip(predictions.logits[:-1], predictions.boxes[:-1], strict=True)
        ]
        return loss, values, auxiliary

    def score(
        self, predictions: Predictions, labels: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the predictions of all layers, and its terms."""
        targets = Targets.from_labels(labels, predictions.logits.device)
        step = self._totals or _batch_totals(targets, predictions.num_classes)
        targets = targets if step is None else replace(targets, num_boxes=0.0, step=step)
        self.last = predictions.detach(), targets
        return self.criterion(predictions, targets)

    @contextmanager
    def step_totals(self, totals: StepTotals | None) -> Iterator[None]:
        """Normalize terms by the totals of an optimizer step within the context; None: by the batch.

        A loop that accumulates gradients passes the totals of its micro-batches, divided by the number of processes.
        """
        previous, self._totals = self._totals, totals
        try:
            yield
        finally:
            self._totals = previous

    def detach(self) -> None:
        """Restore the stock loss of the model."""
        for hook in self._hooks:
            hook.remove()
        self._model.loss_function = self._stock_loss

    def layer_outputs(self) -> tuple[Tensor, Tensor]:
        """Return the outputs of all layers in the latest forward pass, and clear the recorded ones.

        Logits `[L, B, Q, C]` and boxes `[L, B, Q, 4]`.
        """
        recorded, self._recorded = self._recorded, []
        return self.family.apply_heads(self._model, recorded)

    def _clear(self, module: nn.Module, inputs: object) -> None:
        self._recorded = []

    def _record(self, module: nn.Module, inputs: object, output: Any) -> None:
        self._recorded.append(output)


def attach_criterion(model: PreTrainedModel, criterion: Criterion | None = None) -> AttachedCriterion:
    """Make `model(pixel_values, labels=...)` compute its loss by `criterion`, in any training loop.

    The default is the criterion of the model's family. Every decoder layer is scored, as in the paper, whatever
    `config.auxiliary_loss` is; config and outputs of the model stay the same. With `auxiliary_loss=True` transformers
    passes the *normalized* output of each layer to the next one, unlike the original DETR, so switching it on changes
    the function of a trained model. Therefore the heads are applied here to the outputs of the layers. A model whose
    config has it on already computes its layers as before.

    YOLOS has predictions of its last layer only (Fang et al., NeurIPS 2021). Raises TypeError for a model of no family
    or a wrapped model, CriterionError for terms that do not support the activation of the model, InputError for a class
    head that contradicts the config, and RuntimeError if the model ignores the criterion.
    """
    if isinstance(model, nn.DataParallel):
        raise TypeError(
            "attach_criterion: torch.nn.DataParallel is not supported, because each of its copies would compute the loss of "
            "its own images. Pass the model itself and start one process per GPU: "
            "torchrun --nproc_per_node N -m detr_ft train RECIPE, or torchrun --nproc_per_node N SCRIPT.py"
        )
    if criterion is not None and (isinstance(criterion, type) or not callable(criterion)):
        raise TypeError(
            f"attach_criterion: criterion must be a function of predictions and targets, such as a SetCriterion, got {criterion!r}"
        )
    family = family_of(model)
    criterion = family.default_criterion() if criterion is None else criterion
    check_activation(criterion, family.activation)
    check_class_head(model)
    previous = model.loss_function if isinstance(model, PreTrainedModel) else None
    if isinstance(previous, AttachedCriterion):
        previous.detach()
    attached = AttachedCriterion(model, criterion)
    model.loss_function = attached
    current: object = model.loss_function
    if current is not attached:
        attached.detach()
        raise RuntimeError(
            "attach_criterion: the model ignores its new loss_function. Check that this release of transformers is supported."
        )
    return attached


def _batch_totals(targets: Targets, classes: int) -> StepTotals | None:
    """Return the totals of a batch over all processes, divided by their number.

    None with a single process. Computed on the device without synchronization.
    """
    if not has_process_group():
        return None
    totals = torch.zeros(classes + 1, device=targets.labels.device)
    ones = torch.ones_like(targets.labels, dtype=totals.dtype)
    totals.index_add_(0, targets.labels.clamp(0, classes - 1), ones)  # the criterion reports labels out of range
    totals[classes:] = len(targets.counts)
    sum_over_processes(totals).div_(world_size())
    return StepTotals(totals[classes], totals[:classes], world_size())
