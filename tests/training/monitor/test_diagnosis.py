"""Each cause of an mAP near 0 is planted and must be named; a valid run has no remark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from support.small_run import make_trainer

from detr_ft.criterion import detr_criterion
from detr_ft.data.generated.generate import generate
from detr_ft.models.freeze import set_trainable
from detr_ft.models.load import load_model
from detr_ft.training.monitor.diagnosis import MAP_OF_NOTHING, History, Overlaps, diagnose, measure_overlaps, remarks
from detr_ft.training.monitor.display import PlainDisplay, lines_of_evaluation
from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer

Change = Callable[[dict[str, Any]], dict[str, Any]]


def as_corners(row: dict[str, Any]) -> dict[str, Any]:
    boxes = [[x, y, x + w, y + h] for x, y, w, h in row["objects"]["bbox"]]
    return {"objects": row["objects"] | {"bbox": boxes}}


def as_centres(row: dict[str, Any]) -> dict[str, Any]:
    boxes = [[x + w / 2, y + h / 2, w, h] for x, y, w, h in row["objects"]["bbox"]]
    return {"objects": row["objects"] | {"bbox": boxes}}


def rows_first(row: dict[str, Any]) -> dict[str, Any]:
    return {"objects": row["objects"] | {"bbox": [[y, x, h, w] for x, y, w, h in row["objects"]["bbox"]]}}


def elsewhere(row: dict[str, Any]) -> dict[str, Any]:
    """Annotations of other images."""
    boxes = [[row["width"] - x - w, row["height"] - y - h, w, h] for x, y, w, h in row["objects"]["bbox"]]
    return {"objects": row["objects"] | {"bbox": boxes}}


def one_based(row: dict[str, Any]) -> dict[str, Any]:
    return {"objects": row["objects"] | {"category": [(one + 1) % 8 for one in row["objects"]["category"]]}}


def trained_remarks(
    folder: Path, validation: Dataset | None = None, **settings: Any
) -> tuple[float, list[str], list[str]]:
    """Return mAP and remarks of a trained model after an epoch in which it learns nothing."""
    model, processor = load_model("embedded:small")
    set_trainable(model, [])
    data = generate("shapes?train=24&validation=16&edge=128&seed=5")
    lines: list[str] = []
    trainer = DetrTrainer(
        model, detr_criterion(), data["train"], data["validation"] if validation is None else validation,
        TrainSettings(output_dir=str(folder), num_train_epochs=1, learning_rate=1e-9, logging_steps=1, **settings),
        processor=processor, display=PlainDisplay(lines.append), pretrained_fraction=1.0,
    )  # fmt: skip
    row = trainer.train().log[-1]
    return row["map"], row["remarks"], lines


@pytest.fixture(scope="module")
def validation() -> Dataset:
    return generate("shapes?train=24&validation=16&edge=128&seed=5")["validation"]


def test_a_valid_run_has_no_remarks(tmp_path: Path) -> None:
    value, sentences, lines = trained_remarks(tmp_path / "run")
    assert value > 0.5
    assert sentences == []
    assert lines[-1].startswith("epoch 1: mAP 0.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (as_corners, "unless its boxes are xyxy in pixels: then IoU is 0.79"),
        (as_centres, "unless its boxes are cxcywh in pixels"),
        (rows_first, "unless its boxes are rows before columns"),
        (elsewhere, "differ in kind"),
    ],
)
def test_boxes_in_another_frame(tmp_path: Path, validation: Dataset, change: Change, words: str) -> None:
    value, sentences, lines = trained_remarks(tmp_path / "run", validation.map(change))
    assert value < MAP_OF_NOTHING
    assert sentences[0].startswith("box frame: ")
    assert words in sentences[0]
    assert lines[-1] == f"  {sentences[0]}"


def test_classes_counted_from_one(tmp_path: Path, validation: Dataset) -> None:
    value, sentences, lines = trained_remarks(tmp_path / "run", validation.map(one_based))
    assert value < MAP_OF_NOTHING
    assert sentences[0].startswith("label map: ")
    assert lines[-1] == f"  {sentences[0]}"


def final_remarks(folder: Path, start: Path, **settings: Any) -> list[str]:
    """The remarks at the end of a run of a tiny model from random weights."""
    trainer = make_trainer(start, folder, logging_steps=1, **settings)
    sentences: list[str] = trainer.train().log[-1]["remarks"]
    return sentences


def test_a_rate_at_which_nothing_is_learned(tiny_checkpoint: Path, tmp_path: Path) -> None:
    remark = final_remarks(tmp_path / "run", tiny_checkpoint, num_train_epochs=3, learning_rate=1e-8)[-1]
    assert remark.startswith("learning rate: the loss went from ")
    assert "at 1e-08, which is too low to learn; try 0.0001" in remark


def test_a_rate_at_which_it_diverges(tiny_checkpoint: Path, tmp_path: Path) -> None:
    remark = final_remarks(tmp_path / "run", tiny_checkpoint, num_train_epochs=3, learning_rate=0.05)[-1]
    assert "at 0.05, which is too high for a transformer" in remark


def test_a_run_that_is_too_short(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (remark,) = final_remarks(tmp_path / "other", tiny_checkpoint, num_train_epochs=1)
    assert remark.startswith("too short: 3 steps are too few")
    assert "train.num_train_epochs" in remark
    (remark,) = diagnose(Overlaps(), Overlaps(), [], History([9.0, 8.0, 7.0, 6.0], 40, 1e-4, 1.0, 0.5))
    assert remark.startswith("too short: the loss went from 9 to 6 in 40 steps and is falling")
    (remark,) = diagnose(Overlaps(), Overlaps(), [], History([9.0, 9.0, 9.0, 9.0], 40, 1e-4, 1.0, 0.5))
    assert remark.startswith("the loss went from 9 to 9 in 40 steps: nothing is learned")
    assert "detr-ft check RECIPE --probe" in remark


def test_weights_that_were_not_loaded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    trainer.monitor.evaluator.pretrained_fraction = 0.25
    assert trainer.train().log[-1]["remarks"][-2].startswith("weights: 25% of the model came from a checkpoint")


def test_scores_below_every_threshold(validation: Dataset) -> None:
    """A model whose boxes are right and whose queries all predict no-object."""
    model, processor = load_model("embedded:small")
    with torch.no_grad():
        model.class_labels_classifier.bias[-1] += 30
    overlaps = measure_overlaps(model, processor, validation, 8)
    assert max(overlaps.scores) < 0.01
    causes = diagnose(overlaps, overlaps, [], History([5.0, 4.0, 4.0, 4.0], 4, 1e-4, 1.0, 1.0))
    assert causes[0].startswith("thresholds: boxes fit (IoU 0.")
    assert "eos_coef" in causes[0]


def test_each_unusual_statistic_has_a_remark() -> None:
    row = {
        "left_out": 0.25, "no_object_share": 1.0, "matched_iou": 0.8,
        "gradient_share_loss_ce": 0.97, "gradient_share_loss_bbox": 0.03,
    }  # fmt: skip
    sample = {"changed_since_last": 0.5, "queries_never_used": 0.6, "objects_looked_at": 400}
    left_out, one_sided, silent, unsteady, idle = remarks(row, sample, 100, 0.8)
    assert left_out == "25% of the objects have no query: increase model.num_queries"
    assert one_sided.startswith("loss_ce contributes 97% of the gradient")
    assert silent.startswith("boxes fit, but every query predicts no-object")
    assert unsteady.startswith("50% of the objects changed their query")
    assert idle.startswith("60% of the 100 queries match none of 400 objects")


def test_early_and_with_few_objects_there_are_no_remarks() -> None:
    sample = {"changed_since_last": 0.5, "queries_never_used": 0.6, "objects_looked_at": 200}
    assert remarks({"left_out": 0.0, "no_object_share": 1.0, "matched_iou": 0.2}, sample, 100, 0.3) == []
    assert remarks({}, {}, 100, 1.0) == []


def test_an_evaluation_is_described_in_lines() -> None:
    row = {"epoch": 3, "map": 0.5, "map_50": 0.75, "map_75": None, "changed_since_last": 0.123, "remarks": ["look"]}
    first = "epoch 3: mAP 0.500, mAP50 0.750, mAP75 none, 12% of the objects changed their query"
    assert lines_of_evaluation(row) == [first, "  look"]


def test_no_detections_are_no_error() -> None:
    assert Overlaps().mean_iou == 0
    assert Overlaps().accuracy == 1
