from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer, unprepared_trainer
from torch.nn.utils import clip_grad_norm_
from transformers import DetrForObjectDetection, pipeline

from detr_ft.criterion import HungarianMatcher, MatcherSchedule, OneToManyMatcher, SetCriterion, detr_criterion
from detr_ft.criterion.box_losses import BoxL1Loss
from detr_ft.data.schema import class_names, detection_objects
from detr_ft.errors import InputError
from detr_ft.models.label_map import fit_labels
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.optimizer import build_optimizer, build_schedule
from detr_ft.training.settings import OptimSettings
from detr_ft.training.step_totals import seed_step
from detr_ft.training.trainer import DetrTrainer, TrainingError


def test_a_run_learns_and_leaves_a_stock_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", lines, num_train_epochs=20, learning_rate=3e-3)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    result = trainer.train()
    assert all(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    losses = [row["loss_bbox"] for row in result.log if "loss" in row]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert result.metrics["map"] is not None
    assert len(result.detections) == 6
    assert any("left" in line for line in lines)
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log == result.log
    assert {"loss_ce", "loss_bbox", "loss_giou", "cardinality_error", "loss_ce_0", "learning_rate"} <= set(log[0])
    detections = pipeline("object-detection", model=str(tmp_path / "run"), threshold=0.0)(_image(trainer))
    assert len(detections) == 8


def test_the_steps_are_those_of_a_plain_loop(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {"max_grad_norm": 0.05, "weight_decay": 0.1, "warmup_steps": 3}
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **settings)
    trainer.train()
    plain = make_trainer(tiny_checkpoint, tmp_path / "plain", **settings)  # for its model and batches alone
    optimizer = build_optimizer(plain.model, plain.settings, OptimSettings())
    schedule = build_schedule(optimizer, plain.settings, plain.loader.total_steps)
    plain.model.train()
    clipped = 0
    for number, batch in enumerate(plain.loader.steps(), start=1):
        seed_step(plain.settings.seed, number, process=0)
        plain.model(**plain.stepper.format.normalize(batch.micro_batches[0].inputs)).loss.backward()
        clipped += bool(clip_grad_norm_(plain.model.parameters(), 0.05) > 0.05)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert clipped > 0
    assert number == trainer.progress.step == 6
    ours, theirs = trainer.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_schedule_of_matchers_follows_the_epochs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    schedule = MatcherSchedule([OneToManyMatcher(k=2), HungarianMatcher()], [0, 1])
    criterion = SetCriterion(schedule, detr_criterion().losses)
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", criterion=criterion)
    matchers: list[object] = []
    trainer.display.step = lambda step, row: matchers.append(trainer.stepper.attached.criterion.matcher)  # type: ignore[method-assign, attr-defined]
    trainer.train()
    assert matchers == [schedule.matchers[0]] * 3 + [schedule.matchers[1]] * 3


def _image(trainer: DetrTrainer) -> Any:
    from detr_ft.data.images import open_image

    return open_image(trainer.monitor.evaluator.eval_dataset[0]["image"])  # type: ignore[index]


def test_the_same_seed_gives_the_same_weights_and_metrics(tiny_checkpoint: Path, tmp_path: Path) -> None:
    results = [make_trainer(tiny_checkpoint, tmp_path / name).train() for name in ("a", "b")]
    first, second = (DetrForObjectDetection.from_pretrained(tmp_path / name).state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert results[0].metrics == results[1].metrics
    other = make_trainer(tiny_checkpoint, tmp_path / "c", seed=1)
    other.train()
    assert any(not torch.equal(first[name], value.cpu()) for name, value in other.model.state_dict().items())


def test_the_folder_of_another_run_is_not_changed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("mine\n")
    with pytest.raises(InputError, match="run is not empty"):
        make_trainer(tiny_checkpoint, tmp_path / "run")
    assert (tmp_path / "run" / "log.jsonl").read_text() == "mine\n"
    assert len(list((tmp_path / "run").iterdir())) == 1


class Infinite(BoxL1Loss):
    """A loss whose value is finite and whose gradient is not."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return super().__call__(predictions, targets, matches) + (predictions.boxes.sum((1, 2, 3)) * 0).sqrt()


def test_a_bad_gradient_stops_the_run_and_names_the_images(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", criterion=SetCriterion(HungarianMatcher(), [Infinite()]))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    words = r"step 1, images \d+, \d+, \d+, \d+: a gradient is NaN.*the gradient of the loss Infinite.*at layer"
    with pytest.raises(TrainingError, match=words):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_images_without_objects_train(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=1)
    empty = detection_objects([], [])
    rows = [row | {"objects": empty} for row in trainer.loader.examples.split]
    trainer.loader.examples.split = type(trainer.loader.examples.split).from_list(
        rows, features=trainer.loader.examples.split.features
    )
    result = trainer.train()
    assert all(row["loss_bbox"] == 0 for row in result.log if "loss" in row)
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def test_full_determinism_is_set_in_torch(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, "")  # and so takes back what is set here
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    make_trainer(tiny_checkpoint, tmp_path / "plain")
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        make_trainer(tiny_checkpoint, tmp_path / "run", full_determinism=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_model_without_the_classes_of_the_data_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = unprepared_trainer(tiny_checkpoint, tmp_path / "run")
    names = class_names(trainer.train_dataset)
    fit_labels(trainer.model, names[::-1])
    message = r"its classes are not those of the data: 5 \(magnet, .*detr_ft\.fit_labels\(model, names\)"
    with pytest.raises(InputError, match=message):
        trainer.train()
    assert not (tmp_path / "run").exists()
    fit_labels(trainer.model, names)
    assert trainer.train().metrics["map"] is not None
