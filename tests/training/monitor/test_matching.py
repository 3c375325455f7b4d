"""Statistics of the matching, compared with explain and with values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.random_batches import random_batch as random_batch_of
from support.small_run import make_trainer, stop_after
from transformers import DetrForObjectDetection, DetrImageProcessor

from detr_ft.boxes import iou
from detr_ft.criterion import (
    BoxL1Loss,
    CardinalityError,
    CrossEntropyLoss,
    GIoULoss,
    HungarianMatcher,
    LayerMatcher,
    OneToManyMatcher,
    SetCriterion,
    detr_criterion,
    explain,
)
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.errors import Interrupted
from detr_ft.models.label_map import fit_labels
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.monitor.matching import MatchingSample, matching_statistics, tally
from detr_ft.utils.assets import embedded_checkpoint

CPU = torch.device("cpu")


def random_batch(seed: int) -> tuple[Predictions, Targets]:
    predictions, targets, _ = random_batch_of(seed, (2, 0, 5))
    return Predictions(predictions.logits.detach(), predictions.boxes.detach()), targets


def of(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> dict[str, float]:
    return matching_statistics([tally(criterion, predictions, targets)])


@pytest.mark.parametrize("seed", range(5))
def test_statistics_equal_those_of_explain(seed: int) -> None:
    predictions, targets = random_batch(seed)
    criterion = detr_criterion()
    statistics = of(criterion, predictions, targets)
    explained = explain(criterion, predictions, targets)
    last = [(image, pair) for image, one in enumerate(explained) for pair in one.layers[-1].pairs]
    starts = torch.tensor([0, *targets.counts]).cumsum(0).tolist()
    likeliest = predictions.logits[-1].argmax(-1)
    right = [likeliest[image, pair.query] == targets.labels[starts[image] + pair.target] for image, pair in last]
    overlaps = [
        iou(predictions.boxes[-1, image, pair.query], targets.boxes[starts[image] + pair.target]).item()
        for image, pair in last
    ]
    moved = [
        queries[layer] != queries[layer - 1]
        for one in explained
        for queries in one.partners
        for layer in range(1, predictions.num_layers)
    ]
    regretted = [pair.regret for _, pair in last if pair.regret != float("inf")][:32]
    assert statistics["class_accuracy"] == pytest.approx(sum(map(int, right)) / len(right), abs=1e-4)
    assert statistics["matched_iou"] == pytest.approx(sum(overlaps) / len(overlaps), abs=1e-4)
    assert statistics["changed_between_layers"] == pytest.approx(sum(moved) / len(moved), abs=1e-4)
    assert statistics["regret"] == pytest.approx(sum(regretted) / len(regretted), abs=1e-3)
    assert statistics["no_object_share"] == pytest.approx(
        (likeliest == predictions.num_classes).float().mean().item(), abs=1e-4
    )
    assert statistics["left_out"] == 0


def test_gradient_shares_are_of_weighted_terms_and_add_up_to_one() -> None:
    predictions, targets = random_batch(1)
    losses = [CrossEntropyLoss(weight=1), BoxL1Loss(weight=5), GIoULoss(weight=2), CardinalityError()]
    shares = {
        name: value for name, value in of(SetCriterion(HungarianMatcher(), losses), predictions, targets).items()
        if name.startswith("gradient_share_")
    }  # fmt: skip
    assert set(shares) == {"gradient_share_loss_ce", "gradient_share_loss_bbox", "gradient_share_loss_giou"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    losses[1] = BoxL1Loss(weight=50)
    heavier = of(SetCriterion(HungarianMatcher(), losses), predictions, targets)
    ratio = {name: heavier[name] / shares[name] for name in shares}
    assert ratio["gradient_share_loss_bbox"] == pytest.approx(10 * ratio["gradient_share_loss_ce"], rel=1e-2)


def test_the_gradient_is_that_at_the_heads_outputs() -> None:
    """Moved by a step along a term's gradient before the sigmoid, the term changes by the norm squared."""
    predictions, targets = random_batch(2)
    criterion = SetCriterion(HungarianMatcher(), [CrossEntropyLoss(weight=1), BoxL1Loss(weight=5)])
    matches = criterion.matcher(predictions, targets)
    before = predictions.boxes.logit().requires_grad_()
    (5 * BoxL1Loss()(Predictions(predictions.logits, before.sigmoid()), targets, matches)).sum().backward()
    logits = predictions.logits.clone().requires_grad_()
    CrossEntropyLoss()(Predictions(logits, predictions.boxes), targets, matches).sum().backward()
    assert before.grad is not None
    assert logits.grad is not None
    of_boxes, of_classes = before.grad.norm().item(), logits.grad.norm().item()
    statistics = of(criterion, predictions, targets)
    assert statistics["gradient_share_loss_bbox"] == pytest.approx(of_boxes / (of_boxes + of_classes), abs=1e-3)


def test_targets_beyond_the_queries_are_left_out() -> None:
    torch.manual_seed(0)
    boxes = torch.cat([torch.rand(8, 2) * 0.5 + 0.25, torch.rand(8, 2) * 0.2 + 0.1], 1)
    targets = Targets.from_labels([{"class_labels": torch.zeros(8, dtype=torch.long), "boxes": boxes}], CPU)
    predictions = Predictions(torch.randn(2, 1, 6, 3), torch.rand(2, 1, 6, 4) * 0.5 + 0.1)
    assert of(detr_criterion(), predictions, targets)["left_out"] == 0.25


def test_without_objects_statistics_of_objects_are_left_out() -> None:
    nothing = Targets.from_labels([{"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}], CPU)
    statistics = of(detr_criterion(), Predictions(torch.randn(2, 1, 6, 3), torch.rand(2, 1, 6, 4)), nothing)
    assert set(statistics) == {"no_object_share", *(f"gradient_share_loss_{name}" for name in ("ce", "bbox", "giou"))}
    assert statistics["gradient_share_loss_ce"] == 1


def test_one_to_many_and_matchers_without_costs_have_statistics() -> None:
    predictions, targets = random_batch(3)
    losses = detr_criterion().losses
    mixed = LayerMatcher(last=HungarianMatcher(), auxiliary=OneToManyMatcher(k=3))
    assert 0 <= of(SetCriterion(mixed, losses), predictions, targets)["changed_between_layers"] <= 1

    def first_come(predictions: Predictions, targets: Targets) -> Matches:
        return HungarianMatcher()(predictions, targets)

    statistics = of(SetCriterion(first_come, losses), predictions, targets)
    assert "regret" not in statistics
    assert statistics["changed_between_layers"] == of(SetCriterion(HungarianMatcher(), losses), predictions, targets)["changed_between_layers"]  # fmt: skip


def test_only_a_learning_model_changes_its_matching(tmp_path: Path) -> None:
    trained = embedded_checkpoint(
        "small"
    )  # queries of random weights answer nearly the same, and change places over nothing
    still = make_trainer(trained, tmp_path / "still", num_train_epochs=3, learning_rate=1e-12).train()
    changed = [row.get("changed_since_last") for row in still.log if "map" in row]
    # A GPU adds up in another order each time, which decides between queries that answer the same.
    assert changed == [None, 0.0, 0.0] if not torch.cuda.is_available() else max(changed[1:]) < 0.2
    moving = make_trainer(trained, tmp_path / "moving", num_train_epochs=3, learning_rate=1e-3).train()
    assert moving.log[-1]["changed_since_last"] > 0.1
    assert moving.log[-1]["objects_looked_at"] == 43


def test_unused_queries_are_counted(tiny_model: DetrForObjectDetection) -> None:
    """A matcher that gives everything to the first two of eight queries leaves six idle."""
    split = generate("workshop?train=12&edge=64")["train"]
    form = ImageFormat.of(DetrImageProcessor(size={"max_height": 64, "max_width": 64}))
    fit_labels(tiny_model, split.features["objects"]["category"].feature.names)

    def two(predictions: Predictions, targets: Targets) -> Matches:
        chosen = [
            place
            for place in range(len(targets.labels))
            if place < 2 or targets.image[place] != targets.image[place - 2]
        ]
        target = torch.tensor(chosen)
        query = torch.tensor([place % 2 for place in chosen])
        return Matches(torch.zeros_like(target), targets.image[target], query, target, torch.ones(1))

    statistics = MatchingSample(split, form, 5).update(tiny_model, SetCriterion(two, detr_criterion().losses), CPU)
    assert statistics["queries_never_used"] == 0.75


def test_changes_are_counted_across_a_resume(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {"num_train_epochs": 3, "learning_rate": 1e-2}
    whole = make_trainer(tiny_checkpoint, tmp_path / "whole", **settings).train()
    first = make_trainer(tiny_checkpoint, tmp_path / "run", **settings)
    stop_after(first, 4)
    with pytest.raises(Interrupted):
        first.train()
    again = make_trainer(
        tiny_checkpoint, tmp_path / "run", checkpoint=tmp_path / "run/checkpoints/step-4", **settings
    ).train()
    counted = [[row.get("changed_since_last") for row in run.log if "map" in row] for run in (whole, again)]
    assert counted[0] == counted[1]
    assert counted[0][1] > 0
