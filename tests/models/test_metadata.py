"""The `detr_ft` block of a model's config: written, read, and checked when a model is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models.metadata import (
    read_criterion,
    read_labels,
    read_lora,
    read_thresholds,
    write_criterion,
    write_labels,
    write_lora,
    write_thresholds,
)
from detr_ft.run_directory import RunDirectory
from detr_ft.workflows.evaluate import evaluate


def damaged(checkpoint: Path, folder: Path, block: Any) -> str:
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"detr_ft": block}))
    return str(folder)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("x", ["detr_ft must be a mapping, got 'x'"]),
        (
            {"thresholds": {"cat": "high", "dog": 2}, "labels": [1]},
            [
                "detr_ft.thresholds.cat must be a number from 0 to 1, got 'high'",
                "thresholds.dog",
                "detr_ft.labels must",
            ],
        ),
        ({"thresholds": [1, 2]}, ["detr_ft.thresholds must be a mapping"]),
        ({"labels": {"reused": [1]}}, ["detr_ft.labels.reused must be a mapping"]),
        ({"criterion": "mine"}, ["detr_ft.criterion must be a mapping"]),
    ],
)
def test_damaged_metadata_are_reported_with_their_file(
    tiny_checkpoint: Path, tmp_path: Path, block: Any, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        Detector.load(damaged(tiny_checkpoint, tmp_path / "one", block))
    for word in words:
        assert word in str(caught.value)
    assert all(f"{tmp_path}/one: config.json: " in line for line in caught.value.problems)


@pytest.mark.parametrize("block", [None, {}, {"thresholds": None, "labels": None, "criterion": None}])
def test_empty_metadata_give_default_thresholds(tiny_checkpoint: Path, tmp_path: Path, block: Any) -> None:
    detector = Detector.load(damaged(tiny_checkpoint, tmp_path / "one", block))
    assert set(detector.thresholds.values()) == {0.5}


def test_an_invalid_criterion_is_reported(tmp_path: Path) -> None:
    from detr_ft.data.sources.load import load_data
    from detr_ft.utils.assets import embedded_checkpoint

    block = {"criterion": {"matcher": {"use": "Nope"}, "losses": []}}
    model = damaged(embedded_checkpoint("small"), tmp_path / "one", block)
    split = load_data("generated:shapes?train=1&validation=2")["validation"]
    with pytest.raises(InputError, match=r"detr_ft\.criterion\.matcher"):
        evaluate(model, split, batch_size=2, output_dir=tmp_path / "out")


def test_everything_written_is_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_checkpoint)
    read = (read_labels, read_criterion, read_lora, read_thresholds)
    assert [one(config) for one in read] == [{}, None, None, {}]
    config.detr_ft = {"criterion": {"of": "the checkpoint"}, "thresholds": {"cat": 0.3}}
    write_labels(config, {"kitten": "cat"}, ["elk"])
    assert [one(config) for one in read] == [{"kitten": "cat"}, None, None, {}]
    write_lora(config, {"rank": 4})
    write_criterion(config, {"losses": []}, "owner/name")
    config.save_pretrained(tmp_path)
    write_thresholds(RunDirectory(tmp_path), {"elk": 0.25})
    again = AutoConfig.from_pretrained(tmp_path)
    assert [one(again) for one in read] == [{"kitten": "cat"}, {"losses": []}, {"rank": 4}, {"elk": 0.25}]
    assert again.detr_ft["base_model"] == "owner/name"
    assert again.detr_ft["labels"]["new"] == ["elk"]
