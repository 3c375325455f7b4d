"""The seam between a model and its loss: `attach_criterion` makes a stock model train by a criterion of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from detr_ft.criterion import check_activation
from detr_ft.models.families.family import AttachableModel, Detr
from detr_ft.structures import Predictions, StepTotals, Targets
from detr_ft.utils.collectives import has_process_group, sum_over_processes, world_size

Criterion = Callable[[Predictions, Targets], tuple[Tensor, dict[str, Tensor]]]


class AttachedCriterion:
    """What stands in a model's place of its loss.

    Terms are normalized by the batch of all processes, as one process with all the images would compute them, or within
    `step_totals` by the totals given there. `last` has the latest arguments of the criterion, without gradient, for
    `find_fault`.
    """

    # A plain object, never an nn.Module: a model swallows those as submodules and goes on with the stock loss.
    def __init__(self, model: AttachableModel, criterion: Criterion) -> None:
        self.criterion = criterion
        self._totals: StepTotals | None = None
        self.last: tuple[Predictions, Targets] | None = None
        self._model = model
        self._stock_loss = model.loss_function
        self._hidden: list[Tensor] = []
        self._handles = []
        if isinstance(model, Detr):
            decoder = model.model.decoder
            self._handles = [decoder.register_forward_pre_hook(self._forget)]
            self._handles += [layer.register_forward_hook(self._remember) for layer in decoder.layers]

    def __call__(
        self,
        logits: Tensor,
        labels: Sequence[Mapping[str, Tensor]],
        device: torch.device,
        pred_boxes: Tensor,
        config: Any,
        outputs_class: Tensor | None = None,
        outputs_coord: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], list[dict[str, Tensor]]]:
        """The loss as transformers calls it: `(loss, loss_dict, auxiliary_outputs)`."""
        if not isinstance(self._model, Detr):
            outputs_class, outputs_coord = logits[None], pred_boxes[None]  # YOLOS answers from its last layer alone
        elif outputs_class is None or outputs_coord is None:
            outputs_class, outputs_coord = self.of_layers(self._model)
        # The last layer is what the model answers with, logits and pred_boxes; see `attach_criterion`.
        predictions = Predictions(
            torch.cat([outputs_class[:-1], logits[None]]), torch.cat([outputs_coord[:-1], pred_boxes[None]])
        )
        loss, values = self.score(predictions, labels)
        auxiliary = [
            {"logits": a, "pred_boxes": b} for a, b in zip(outputs_class[:-1], outputs_coord[:-1], strict=True)
        ]
        return loss, values, auxiliary

    def score(
        self, predictions: Predictions, labels: Sequence[Mapping[str, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of all layers' answers, and its terms."""
        targets = Targets.from_labels(labels, predictions.logits.device)
        step = self._totals or _over_processes(targets, predictions.num_classes)
        targets = targets if step is None else replace(targets, num_boxes=0.0, step=step)
        self.last = predictions.detach(), targets
        return self.criterion(predictions, targets)

    @contextmanager
    def step_totals(self, totals: StepTotals | None) -> Iterator[None]:
        """Normalize terms by the totals of an optimizer step within the context; None: by the batch of all processes.

        A loop that accumulates gradients passes the totals of its micro-batches, divided by the number of processes.
        """
        previous, self._totals = self._totals, totals
        try:
            yield
        finally:
            self._totals = previous

    def detach(self) -> None:
        """Give the model its stock loss back."""
        for handle in self._handles:
            handle.remove()
        self._model.loss_function = self._stock_loss

    def _forget(self, module: nn.Module, inputs: object) -> None:
        self._hidden = []

    def _remember(self, module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self._hidden.append(output if isinstance(output, Tensor) else output[0])

    def of_layers(self, model: Detr) -> tuple[Tensor, Tensor]:
        """Logits `[L, B, Q, K+1]` and boxes `[L, B, Q, 4]` of every decoder layer in the forward pass before, which it forgets."""
        hidden = model.model.decoder.layernorm(torch.stack(self._hidden))  # [L, B, Q, D]
        self._hidden = []
        return model.class_labels_classifier(hidden), model.bbox_predictor(hidden).sigmoid()


def attach_criterion(model: AttachableModel, criterion: Criterion) -> AttachedCriterion:
    """Make `model(pixel_values, labels=...)` use `criterion`, in any training loop, and check that it took.

    Every decoder layer is scored, as in the paper, whatever `config.auxiliary_loss` says, and neither the config nor what
    the model answers is changed. That matters: with `auxiliary_loss=True` transformers feeds each layer's *normalised*
    output to the next layer, unlike the original DETR, so that switching it on turns a trained model into another one.
    The heads are therefore applied to the layers' outputs here. A model whose config has it on keeps its own way.

    A Table Transformer is a DETR; of a YOLOS the last layer alone answers, and is scored (Fang et al., NeurIPS 2021). Raises
    TypeError for anything but one of the three, unwrapped, RuntimeError where the model ignores the criterion.
    """
    if isinstance(model, nn.DataParallel):
        raise TypeError(
            "attach_criterion takes a DetrForObjectDetection, got torch.nn.DataParallel, whose copies in one process would each "
            "train by the loss of its own images. Give it the model itself and start a process for each GPU: "
            "torchrun --nproc_per_node N -m detr_ft train RECIPE, or torchrun --nproc_per_node N SCRIPT.py"
        )
    if not isinstance(model, AttachableModel):
        raise TypeError(
            "attach_criterion takes a DetrForObjectDetection, TableTransformerForObjectDetection or "
            f"YolosForObjectDetection, got {type(model).__name__}; attach before wrapping the model for distribution or compilation"
        )
    check_activation(criterion, "softmax")
    previous = model.loss_function
    if isinstance(previous, AttachedCriterion):
        previous.detach()
    attached = AttachedCriterion(model, criterion)
    model.loss_function = attached
    took: object = model.loss_function
    if took is not attached:
        attached.detach()
        raise RuntimeError("the model ignores its new loss_function; is this release of transformers supported?")
    return attached


def _over_processes(targets: Targets, classes: int) -> StepTotals | None:
    """What this batch holds over all processes, divided by them; None where there is one. Nothing waits for it."""
    if not has_process_group():
        return None
    held = torch.zeros(classes + 1, device=targets.labels.device)
    ones = torch.ones_like(targets.labels, dtype=held.dtype)
    held.index_add_(0, targets.labels.clamp(0, classes - 1), ones)  # the criterion tells of labels out of range
    held[classes:] = len(targets.counts)
    sum_over_processes(held).div_(world_size())
    return StepTotals(held[classes], held[:classes])
