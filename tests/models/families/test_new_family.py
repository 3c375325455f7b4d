"""A family added by one file and one entry of the registry works in every step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from models.test_attach import batch
from support.sigmoid_family import REFINER, SigmoidLoss, refiner_criterion, register, save_checkpoint
from support.small_run import make_trainer
from training.test_cuda_graphs import Again, replayed

import detr_ft
from detr_ft.criterion import CrossEntropyLoss, HungarianMatcher, SetCriterion, SoftmaxFocalLoss, detr_criterion
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.models import load
from detr_ft.models.attach import attach_criterion
from detr_ft.models.load import load_model
from detr_ft.recipe.load import build_values
from detr_ft.workflows import run

DATA = "generated:workshop?train=4&validation=2&edge=64"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch)
    return save_checkpoint(tmp_path / "refiner")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_trains_evaluates_and_predicts(checkpoint: Path, tmp_path: Path) -> None:
    trained = detr_ft.train(
        model=checkpoint, data=DATA, output_dir=tmp_path / "run", num_train_epochs=1,
        per_device_train_batch_size=2, logging_steps=1,
    )  # fmt: skip
    rows = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert "loss_class_first" in rows[0]
    recorded = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())["criterion"]
    assert recorded["losses"][0] == {"use": "support.sigmoid_family:SigmoidLoss", "weight": 2}
    assert trained.metrics.map is not None
    assert trained.report.is_file()
    evaluated = detr_ft.evaluate(trained, output_dir=tmp_path / "evaluation")
    assert evaluated.metrics.map == trained.metrics.map
    assert trained.validation is not None
    detector = detr_ft.Detector.load(str(trained.folder))
    detections = detector(open_image(trained.validation[0]["image"]))
    assert ((detections.scores >= 0) & (detections.scores <= 1)).all()


def test_rows_and_boxes_come_from_the_recorded_layers(checkpoint: Path) -> None:
    model, _ = load_model(str(checkpoint))
    attached = attach_criterion(model)
    outputs = model(**batch())
    assert attached.last is not None
    predictions, _ = attached.last
    assert predictions.rows == ("first", "")
    assert predictions.activation == "sigmoid"
    assert torch.equal(predictions.boxes[-1], outputs.pred_boxes)
    assert attached.criterion == refiner_criterion()


def test_a_criterion_of_another_activation_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    model, _ = load_model(str(checkpoint))
    message = r"CrossEntropyLoss is for softmax scores, but the model has sigmoid scores\. Use SigmoidFocalLoss"
    with pytest.raises(CriterionError, match=message):
        attach_criterion(model, detr_criterion())
    values = {
        "model": {"checkpoint": str(checkpoint)}, "data": {"source": "absent"}, "train": {"output_dir": str(tmp_path)},
        "criterion": {"matcher": {"use": "HungarianMatcher"}, "losses": [{"use": "CrossEntropyLoss"}]},
    }  # fmt: skip
    with pytest.raises(InputError, match=rf"criterion: {message}"):
        build_values(values)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values))
    assert "CrossEntropyLoss is for softmax" in detr_ft.check(file).problems[0]
    assert f"{file}:" in detr_ft.check(file).problems[0]
    focal = SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), SoftmaxFocalLoss()])
    with pytest.raises(InputError) as caught:  # before the data are read
        detr_ft.train(model=checkpoint, data="absent:data", criterion=focal, output_dir=tmp_path / "run")
    assert [problem.split()[1] for problem in caught.value.problems] == ["CrossEntropyLoss", "SoftmaxFocalLoss"]


def test_a_sigmoid_term_is_refused_by_a_softmax_model(tiny_checkpoint: Path) -> None:
    model, _ = load_model(str(tiny_checkpoint))
    with pytest.raises(CriterionError, match="SigmoidLoss is for sigmoid scores"):
        attach_criterion(model, SetCriterion(HungarianMatcher(), [SigmoidLoss()]))


def test_plain_names_are_the_form_of_the_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detr_ft.criterion import serialization

    forms = {**serialization.FORMS["FocalLoss"], "sigmoid": SigmoidLoss}
    monkeypatch.setattr(serialization, "FORMS", {**serialization.FORMS, "FocalLoss": forms})
    built = build_values(
        {
            "model": {"checkpoint": str(checkpoint)},
            "data": {"source": "x"},
            "train": {"output_dir": str(tmp_path)},
            "criterion": {"matcher": {"use": "HungarianMatcher"}, "losses": [{"use": "FocalLoss"}]},
        }
    )
    assert built.criterion.losses == (SigmoidLoss(),)
    with pytest.raises(CriterionError, match=r"SoftmaxFocalLoss is for .* Use SigmoidLoss"):
        attach_criterion(load_model(str(checkpoint))[0], SetCriterion(HungarianMatcher(), [SoftmaxFocalLoss()]))


def test_the_config_of_a_checkpoint_on_the_hub_selects_the_criterion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families, downloads = iter([None, REFINER, None, REFINER]), []
    monkeypatch.setattr(load, "local_family", lambda *_: next(families))
    monkeypatch.setattr(run, "commit_of", lambda *arguments: downloads.append(arguments))
    values = {
        "model": {"checkpoint": "someone/refiner"}, "data": {"source": "x"}, "train": {"output_dir": str(tmp_path)}
    }  # fmt: skip
    built = build_values(values)
    assert built.criterion == detr_criterion()
    assert run.with_family(built).criterion == refiner_criterion()
    assert downloads == [("someone/refiner", None)]
    with pytest.raises(InputError, match="criterion: CrossEntropyLoss is for softmax"):
        run.with_family(build_values(values).with_criterion(detr_criterion()))


def test_a_new_recipe_has_the_criterion_of_the_family(checkpoint: Path) -> None:
    recipe = detr_ft.new_recipe(DATA, checkpoint=str(checkpoint)).recipe
    assert recipe.criterion is not None
    assert recipe.criterion["losses"][0]["use"] == "support.sigmoid_family:SigmoidLoss"
    assert recipe.model.freeze == ["backbone"]


def test_replayed_passes_have_the_rows_and_the_activation_of_the_family(checkpoint: Path, tmp_path: Path) -> None:
    losses = []
    for name in ("eager", "replayed"):
        trainer = make_trainer(checkpoint, tmp_path / name, criterion=refiner_criterion(), logging_steps=1)
        if name == "replayed":
            trainer.stepper.forward_backward = replayed(trainer, Again())
        losses.append([row["loss_class_first"] for row in trainer.train().log if "loss" in row])
        assert trainer.stepper.attempt.scored[0][0].activation == "sigmoid"
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
