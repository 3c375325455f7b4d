"""Runs, checkpoints, recipes and terms written by an earlier version, which must load and mean what they meant.

tests/fixtures/written_before/README.md describes how they were written. Apart from `Detector`, the tests use the command line
and plain transformers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoConfig, DetrForObjectDetection

from detr_ft.inference import Detector

pytestmark = pytest.mark.slow

WRITTEN = Path(__file__).parent / "fixtures/written_before"
SCORE, PIXELS, LOSS = 1e-6, 1e-4, 1e-4  # how far values may be off on another processor
METRICS = ("map", "map_50", "map_75", "map_small", "mar_1", "mar_10", "mar_100")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files where they may be changed."""
    return Path(shutil.copytree(WRITTEN, tmp_path / "written"))


def command(*arguments: str, cwd: Path) -> str:
    """Return the stdout of a command; fail with its output if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "detr_ft", *arguments],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_same_boxes(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]], image: str) -> None:
    """The same detections of the same images, in the same order. `predict` once numbered images from 1."""
    assert len(found) == len(expected) > 0
    for mine, before in zip(found, expected, strict=True):
        assert (mine[image], mine["category"]) == (before[image], before["category"])
        assert mine["score"] == pytest.approx(before["score"], abs=SCORE)
        assert mine["bbox"] == pytest.approx(before["bbox"], abs=PIXELS)


@pytest.mark.parametrize("name", ["run", "checkpoint"])
def test_a_model_finds_what_it_found(name: str) -> None:
    expected = json.loads((WRITTEN / f"expected/{name}-predictions.json").read_text())
    files = list(dict.fromkeys(row["file_name"] for row in expected))
    detector = Detector.load(str(WRITTEN / name))
    found = [
        {"file_name": file, "category": detector.names[label], "score": score, "bbox": [x, y, right - x, bottom - y]}
        for file, one in zip(files, detector.detect([WRITTEN / file for file in files]), strict=True)
        for (x, y, right, bottom), score, label in zip(
            one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True
        )
    ]
    assert_same_boxes(found, expected, image="file_name")


def test_the_command_predicts_what_it_predicted(copy: Path) -> None:
    command("predict", "checkpoint", "images", "own/data/train", "--threshold", "0", "--out", "found", cwd=copy)
    expected = json.loads((copy / "expected/checkpoint-predictions.json").read_text())
    found = json.loads((copy / "found/predictions.json").read_text())
    assert_same_boxes(found, expected, image="file_name")
    assert [row["file_name"] for row in found] == [row["file_name"] for row in expected]


def test_a_checkpoint_is_stock_and_its_own_block_is_read() -> None:
    model, output = DetrForObjectDetection.from_pretrained(WRITTEN / "checkpoint", output_loading_info=True)
    assert not any(output[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(model.config.id2label.values()) == ["gear", "wrench", "funnel"]
    block = AutoConfig.from_pretrained(WRITTEN / "checkpoint").detr_ft
    assert block["labels"] == {"new": ["funnel"], "reused": {"gear": "gear", "wrench": "spanner"}}
    assert [loss["use"] for loss in block["criterion"]["losses"]] == [
        "CrossEntropyLoss", "BoxL1Loss", "nwd.py:NWDLoss", "CardinalityError",
    ]  # fmt: skip
    detector = Detector.load(str(WRITTEN / "checkpoint"))
    assert set(block["thresholds"]) == {"gear", "wrench", "funnel"}
    assert detector.thresholds == block["thresholds"]
    # Above them it finds the objects that it was trained on, and nothing else.
    images = sorted((WRITTEN / "own/data/train").glob("*.png"))
    found = [detector.filter(one).labels.unique().tolist() for one in detector.detect(images)]
    assert found == [[2], [0], [], [1]]


def test_a_checkpoint_has_the_figures_it_had(copy: Path) -> None:
    expected = json.loads((copy / "expected/checkpoint-figures.json").read_text())
    assert expected["map"] > 0.9
    metrics = json.loads(command("evaluate", "checkpoint", "--data", "coco:own/data", "--json", cwd=copy))
    assert {name: metrics[name] for name in METRICS} == {name: expected[name] for name in METRICS}
    assert metrics["per_class"] == expected["per_class"]


def test_a_run_has_the_figures_it_had_on_what_it_held_out(copy: Path) -> None:
    output = json.loads(command("evaluate", "run", "--json", "--save-predictions", "found.json", cwd=copy))
    expected = json.loads((copy / "run/metrics.json").read_text())
    assert {name: output[name] for name in METRICS} == {name: expected[name] for name in METRICS}
    assert output["per_class"] == expected["per_class"]
    found, before = (json.loads((copy / file).read_text()) for file in ("found.json", "run/predictions.json"))
    assert_same_boxes(found, before, image="image_id")


def test_a_run_is_resumed_exactly(copy: Path) -> None:
    before, expected = rows_of(copy / "run/log.jsonl"), rows_of(copy / "expected/resumed-log.jsonl")
    command("train", "recipe.yaml", "--resume", "train.num_train_epochs=3", cwd=copy)
    rows = rows_of(copy / "run/log.jsonl")
    assert rows[:5] == before[:5], "those of the checkpoint stay; the evaluation that came after it is made again"
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    steps = [(row, then) for row, then in zip(rows, expected, strict=True) if row["step"] > 4 and "loss" in row]
    assert len(steps) == 2
    for row, then in steps:
        terms = {name: value for name, value in then.items() if name == "loss" or name.startswith("loss_")}
        assert len(terms) == 1 + 6 * 3, "the sum, and six terms at three layers"
        assert {name: row[name] for name in terms} == pytest.approx(terms, rel=LOSS, abs=LOSS)
    assert [one.name for one in (copy / "run/checkpoints").glob("step-*")] == ["step-6"]
    assert (copy / "run/metrics.json").is_file()
    # The recipe that is written again records the explicit names of the terms.
    criterion = yaml.safe_load((copy / "run/recipe.yaml").read_text())["criterion"]
    assert [loss["use"] for loss in criterion["losses"]] == [
        "SoftmaxFocalLoss", "SoftmaxVarifocalLoss", "SoftmaxQualityFocalLoss", "BoxL1Loss", "GIoULoss",
        "centres.py:CentreLoss",
    ]  # fmt: skip
    assert [cost["use"] for cost in criterion["matcher"]["costs"]] == [
        "SoftmaxFocalCost", "BoxL1Cost", "GIoUCost", "centres.py:CentreCost",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["recipe.yaml", "own/nwd.yaml"])
def test_a_recipe_with_a_file_of_terms_is_valid(copy: Path, name: str) -> None:
    command("check", name, cwd=copy)
