from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import DetrForObjectDetection

from detr_ft.criterion import BoxL1Loss, HungarianMatcher, SetCriterion, detr_criterion
from detr_ft.errors import InputError, TargetError
from detr_ft.models.attach import attach_criterion
from detr_ft.structures import Matches, Predictions, StepTotals, Targets


def batch(images: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    labels = [
        {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.3], [0.3, 0.6, 0.1, 0.1]])},
        {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.4, 0.4, 0.5, 0.3]])},
    ]
    return {"pixel_values": torch.randn(images, 3, 64, 64, generator=generator), "labels": labels[:images]}


def test_the_criterion_takes_the_place_of_the_loss(tiny_model: DetrForObjectDetection) -> None:
    only_boxes = SetCriterion(HungarianMatcher(), [BoxL1Loss()])
    attach_criterion(tiny_model, only_boxes)
    outputs = tiny_model(**batch())
    assert set(outputs.loss_dict) == {"loss_bbox", "loss_bbox_0", "loss_bbox_1"}
    torch.testing.assert_close(outputs.loss, 5 * sum(outputs.loss_dict.values()))


def test_the_default_criterion_gives_the_stock_loss_and_gradients(tiny_model: DetrForObjectDetection) -> None:
    """Without auxiliary losses in the stock model, since with them it computes something else: see below."""
    tiny_model.eval()
    stock = copy.deepcopy(tiny_model)
    attach_criterion(tiny_model, detr_criterion())
    ours, theirs = tiny_model(**batch()), stock(**batch())
    for name, value in theirs.loss_dict.items():
        torch.testing.assert_close(ours.loss_dict[name], value, rtol=1e-5, atol=1e-5)
    last_layer = ours.loss_dict["loss_ce"] + 5 * ours.loss_dict["loss_bbox"] + 2 * ours.loss_dict["loss_giou"]
    last_layer.backward()
    theirs.loss.backward()
    for mine, other in zip(tiny_model.parameters(), stock.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None:
            # Equal to 1e-6 at logits and boxes (tests/parity); on the way down fp32 sums are taken in another order.
            torch.testing.assert_close(
                mine.grad, other.grad, rtol=1e-3, atol=1e-4 * float(other.grad.abs().max()) + 1e-7
            )


def test_every_layer_has_a_loss_and_the_outputs_are_unchanged(tiny_model: DetrForObjectDetection) -> None:
    tiny_model.eval()
    before = tiny_model(batch()["pixel_values"])
    attach_criterion(tiny_model, detr_criterion())
    outputs = tiny_model(**batch())
    assert {"loss_ce", "loss_ce_0", "loss_ce_1"} <= set(outputs.loss_dict)
    assert len(outputs.auxiliary_outputs) == 2
    assert tiny_model.config.auxiliary_loss is False
    assert torch.equal(outputs.logits, before.logits)
    assert torch.equal(outputs.pred_boxes, before.pred_boxes)


def test_the_auxiliary_layers_are_those_of_the_original_detr(tiny_model: DetrForObjectDetection) -> None:
    """The final norm is applied to each layer's output, and the next layer gets the output as it was."""
    tiny_model.eval()
    attached = attach_criterion(tiny_model, detr_criterion())
    outputs = tiny_model(**batch(), output_hidden_states=True)
    layers = outputs.decoder_hidden_states[1:]
    assert len(layers) == 3
    for auxiliary, hidden in zip(outputs.auxiliary_outputs, layers[:-1], strict=True):
        normed = tiny_model.model.decoder.layernorm(hidden)
        torch.testing.assert_close(auxiliary["logits"], tiny_model.class_labels_classifier(normed))
    attached.detach()


def test_auxiliary_loss_changes_the_outputs_of_a_model(tiny_model: DetrForObjectDetection) -> None:
    """With `auxiliary_loss`, transformers computes another function, so `attach_criterion` does not set it."""
    tiny_model.eval()
    with torch.no_grad():
        off = tiny_model(batch()["pixel_values"]).logits
        tiny_model.config.auxiliary_loss = True
        on = tiny_model(batch()["pixel_values"]).logits
    assert (off - on).abs().max() > 0.01 * off.abs().max()


def test_a_model_with_auxiliary_loss_is_unchanged(tiny_model: DetrForObjectDetection) -> None:
    tiny_model.config.auxiliary_loss = True
    tiny_model.eval()
    stock = copy.deepcopy(tiny_model)
    attach_criterion(tiny_model, detr_criterion())
    ours, theirs = tiny_model(**batch()), stock(**batch())
    assert ours.loss_dict.keys() == theirs.loss_dict.keys()
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-5, atol=1e-5)


def test_a_module_would_be_ignored_by_the_model_and_is_not_here(tiny_model: DetrForObjectDetection) -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.ones(3))

        def forward(self, predictions: object, targets: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            return predictions.logits.sum(), {"loss_mine": predictions.logits.sum()}  # type: ignore[attr-defined]

    keys = set(tiny_model.state_dict())
    attach_criterion(tiny_model, Module())
    assert set(tiny_model(**batch()).loss_dict) == {"loss_mine"}
    assert set(tiny_model.state_dict()) == keys


def test_a_second_criterion_replaces_the_first_and_detach_restores(tiny_model: DetrForObjectDetection) -> None:
    tiny_model.eval()
    stock = tiny_model(**batch()).loss
    attach_criterion(tiny_model, detr_criterion())
    second = attach_criterion(tiny_model, SetCriterion(HungarianMatcher(), [BoxL1Loss()]))
    assert set(tiny_model(**batch()).loss_dict) == {"loss_bbox", "loss_bbox_0", "loss_bbox_1"}
    second.detach()
    assert torch.equal(tiny_model(**batch()).loss, stock)


def test_the_totals_of_a_step_can_be_set(tiny_model: DetrForObjectDetection) -> None:
    """The batch is half of a step of two alike: both halves of the loss add up to what the batch is alone."""
    tiny_model.eval()
    attached = attach_criterion(tiny_model, detr_criterion())
    outputs = tiny_model(**batch())
    alone, alone_loss = outputs.loss_dict, outputs.loss
    labels = torch.cat([one["class_labels"] for one in batch()["labels"]])  # type: ignore[attr-defined]
    totals = StepTotals(4, 2 * torch.bincount(labels, minlength=tiny_model.config.num_labels).float())
    with attached.step_totals(totals):
        half = tiny_model(**batch()).loss_dict
    assert torch.equal(tiny_model(**batch()).loss, alone_loss)
    for name in ("loss_ce", "loss_bbox", "loss_giou"):
        torch.testing.assert_close(2 * half[name], alone[name])


def test_the_saved_model_is_stock(tiny_model: DetrForObjectDetection, tmp_path: Path) -> None:
    attach_criterion(tiny_model, detr_criterion())
    tiny_model.save_pretrained(tmp_path)
    again, loading = DetrForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tiny_model.eval()
    pixels = batch()["pixel_values"]
    assert torch.equal(again.eval()(pixels).logits, tiny_model(pixels).logits)


def test_gradient_checkpointing_gives_the_same_loss_and_gradients(tiny_model: DetrForObjectDetection) -> None:
    tiny_model.config.dropout = 0.0
    for module in tiny_model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    tiny_model.train()
    other = copy.deepcopy(tiny_model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer releases have another name for it
        other.gradient_checkpointing_enable({"use_reentrant": False})
    for model in (tiny_model, other):
        attach_criterion(model, detr_criterion())
        model(**batch()).loss.backward()
    for mine, theirs in zip(tiny_model.parameters(), other.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("criterion", ["x", 3, SetCriterion])
def test_a_criterion_is_a_function(tiny_model: DetrForObjectDetection, criterion: Any) -> None:
    before = tiny_model.loss_function
    with pytest.raises(TypeError, match="criterion must be a function of predictions and targets"):
        attach_criterion(tiny_model, criterion)
    assert tiny_model.loss_function is before


def test_refuses_anything_but_a_bare_model(tiny_model: DetrForObjectDetection) -> None:
    with pytest.raises(TypeError, match="before wrapping"):
        attach_criterion(nn.Sequential(tiny_model), detr_criterion())  # type: ignore[arg-type]


def test_a_class_head_that_contradicts_the_config_is_refused(tiny_model: DetrForObjectDetection) -> None:
    tiny_model.class_labels_classifier = nn.Linear(32, 6)
    with pytest.raises(InputError, match=r"has 6 rows, and 3 classes in the config need 4\..*detr_ft\.fit_labels"):
        attach_criterion(tiny_model, detr_criterion())


def test_the_default_is_the_criterion_of_the_family(tiny_model: DetrForObjectDetection) -> None:
    assert attach_criterion(tiny_model).criterion == detr_criterion()


@pytest.mark.parametrize("default", [True, False])
def test_labels_that_do_not_fit_are_reported_by_the_model(tiny_model: DetrForObjectDetection, default: bool) -> None:
    attach_criterion(tiny_model, None if default else SetCriterion(FirstQueries(), [BoxL1Loss()]))
    inputs = batch()
    first, second = inputs["labels"]
    for labels, words in (
        ([first, {"boxes": second["boxes"]}], "image 1 of the batch: .*class_labels missing"),
        (first, "must be a list with a mapping for each image, got a dict"),
        ([first], "as many images as the predictions, 2, got 1"),
        ([], "as many images as the predictions, 2, got 0"),
    ):
        with pytest.raises(TargetError, match=words):
            tiny_model(inputs["pixel_values"], labels=labels)


class FirstQueries:
    """A matcher without costs, which checks nothing itself."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        raise AssertionError("not reached")
