"""A custom term that fails: the report of `train`, and the origin that `replay` locates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detr_ft.cli.app import app
from detr_ft.errors import InputError
from detr_ft.workflows.replay import replay

LOSS = """\
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Root:
    weight: float = 1.0
    name: ClassVar[str] = "loss_root"

    def __call__(self, predictions, targets, matches):
        apart = matches.predicted(predictions.boxes) - matches.target_values(targets.boxes)
        return matches.per_layer({value}.sum(-1))
"""
RECIPE = """\
model: {{checkpoint: {checkpoint}}}
data: {{source: "generated:workshop?train=8&validation=2&edge=64"}}
criterion:
  matcher: {{use: HungarianMatcher, costs: [{{use: BoxL1Cost}}]}}
  losses: [{{use: "mine.py:Root"}}]
train: {{output_dir: run, num_train_epochs: 1, per_device_train_batch_size: 4}}
"""


@pytest.mark.parametrize(
    ("value", "origin", "words"),
    [
        ("apart.sqrt()", "loss", "the loss Root"),  # NaN of what is negative
        ("(apart * 0).abs().sqrt()", "gradient", "the gradient of the loss Root"),  # 0, with an infinite slope
        ("apart[:, 7]", "loss", "IndexError"),
    ],
)
def test_a_failed_step_is_reported_and_replayed(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, value: str, origin: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(LOSS.format(value=value))
    (tmp_path / "mine.yaml").write_text(RECIPE.format(checkpoint=tiny_checkpoint))
    trained = CliRunner().invoke(app, ["train", "mine.yaml"])
    assert trained.exit_code == 1
    assert "Traceback" not in trained.output
    text = re.search(
        r"step 1, images ([\d, ]+): .*; nothing of this step was applied\. .*detr-ft (replay \S+)", trained.output
    )
    assert text, trained.output
    assert len(text[1].split(",")) == 4
    assert not (tmp_path / "run/model.safetensors").exists()
    replayed = CliRunner().invoke(app, text[2].split())
    assert replayed.exit_code == 0, replayed.output
    assert "runs code: " in replayed.output
    assert f"origin: {origin}\n" in replayed.output
    assert words in replayed.output


def test_an_invalid_capsule_is_reported(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["replay", str(tmp_path)])
    assert result.exit_code == 2
    assert "no failure capsule" in result.output
    (tmp_path / "failures/step-3").mkdir(parents=True)
    (tmp_path / "failures/step-17").mkdir()
    with pytest.raises(InputError, match=rf"{tmp_path}/failures/step-3 or {tmp_path}/failures/step-17$"):
        replay(tmp_path)
