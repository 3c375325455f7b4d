"""The criterion in loops that are not ours: a bare one, and the Trainer of transformers."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from transformers import DetrForObjectDetection, pipeline

from detr_ft.criterion import SetCriterion
from detr_ft.structures import Predictions, Targets

LOOPS = Path(__file__).parents[2] / "recipes/loops"
SOURCE = "generated:workshop?train=8&validation=2&edge=64"


@pytest.mark.parametrize("name", ["bare.py", "trainer.py"])
def test_trains_by_our_criterion_and_saves_a_stock_model(
    name: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    scored = SetCriterion.__call__

    def watched(self: SetCriterion, predictions: Predictions, targets: Targets) -> object:
        assert predictions.num_layers == 3, "auxiliary layers are scored too"
        loss, values = scored(self, predictions, targets)
        losses.append(loss.item())
        return loss, values

    monkeypatch.setattr(SetCriterion, "__call__", watched)
    main = runpy.run_path(str(LOOPS / name))["main"]
    main(str(tiny_checkpoint), SOURCE, str(tmp_path / "out"), epochs=30, learning_rate=3e-3)
    assert len(losses) == 60
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
    before = DetrForObjectDetection.from_pretrained(tiny_checkpoint).state_dict()
    after = DetrForObjectDetection.from_pretrained(tmp_path / "out").state_dict()
    moved = [
        key for key in before if before[key].shape == after[key].shape and not torch.equal(before[key], after[key])
    ]
    assert any("encoder" in key for key in moved)
    assert any("backbone" in key for key in moved)
    assert pipeline("object-detection", model=str(tmp_path / "out")).model.config.num_labels == 5
