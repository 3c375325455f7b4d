"""The criterion in a model's config is read before anything is computed, and every mistake in it is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.sigmoid_family import refiner_criterion, register, save_checkpoint

from detr_ft.criterion.serialization import describe
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.workflows import evaluate as evaluation
from detr_ft.workflows.evaluate import evaluate
from detr_ft.workflows.trained_criterion import criterion_of, trained_by

DATA = "generated:workshop?train=1&validation=2&edge=64"
INVALID = {
    "matcher": {"use": "HungarianMatcher", "costs": [{"use": "BoxL1Cost", "wieght": 5}]},
    "losses": [{"use": "BoxL2Loss"}],
}


def with_criterion(checkpoint: Path, folder: Path, criterion: object) -> Path:
    """A copy of a checkpoint with a criterion, for the classes of the data."""
    shutil.copytree(checkpoint, folder)
    file = folder / "config.json"
    names = ["gear", "wrench", "hammer", "funnel", "magnet"]
    config = json.loads(file.read_text()) | {"detr_ft": {"criterion": criterion}}
    known = len(config["id2label"])
    config["id2label"] = dict(enumerate(names[:known]))
    config["label2id"] = {name: index for index, name in enumerate(names[:known])}
    file.write_text(json.dumps(config))
    return folder


def test_an_invalid_criterion_is_reported_before_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    names = ["gear", "wrench", "hammer", "funnel", "magnet"]
    model = with_criterion(save_checkpoint(tmp_path / "start", names), tmp_path / "model", INVALID)

    def fail(*_: object) -> None:
        raise AssertionError("the split is evaluated")

    monkeypatch.setattr(evaluation, "detect_together", fail)
    with pytest.raises(InputError) as caught:
        evaluate(model, DATA, output_dir=tmp_path / "report")
    place = "config.json of the model: detr_ft.criterion"
    assert caught.value.problems == [
        f"{place}.matcher.costs.0.wieght: BoxL1Cost has no parameter 'wieght'; did you mean weight?",
        f"{place}.losses.0.use: there is no 'BoxL2Loss'; did you mean BoxL1Loss?",
    ]
    assert not (tmp_path / "report").exists()


def test_a_model_without_a_criterion_is_matched_by_that_of_its_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    start = save_checkpoint(tmp_path / "start")
    detector = Detector.load(str(start))
    assert criterion_of(detector) == refiner_criterion()
    (start / "recipe.yaml").write_text("model: {checkpoint: absent}")
    assert trained_by(str(start), detector) == refiner_criterion()
    recorded = with_criterion(start, tmp_path / "model", describe(refiner_criterion()))
    assert criterion_of(Detector.load(str(recorded))) == refiner_criterion()
