"""The verbs in sequence: real data, a run, its metrics, other runtimes, the Hub, a Space, and a model from the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from hub.running_space import running
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from detr_ft.cli.app import app

NAME = "me/cells"
RECIPE = """\
model: {{checkpoint: "embedded:small", num_queries: 40}}
data: {{source: "{source}", longest_edge: 128}}
train: {{output_dir: runs/cells, num_train_epochs: 2, per_device_train_batch_size: 8, learning_rate: 5.0e-4}}
hub: {{license: mit}}
"""


def here(*arguments: str) -> str:
    """Return the output of a command, which must succeed."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def detr_ft(*arguments: str, cwd: Path) -> str:
    """The same in a process of its own, with an empty cache of the Hub."""
    settings = {**os.environ, "HF_HOME": str(cwd / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "detr_ft", *arguments], cwd=cwd, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pull(kind: str, cwd: Path) -> Path:
    """A repository of the Hub as a folder."""
    code = "import sys; from huggingface_hub import snapshot_download as pull; print(pull(sys.argv[1], repo_type=sys.argv[2]))"
    settings = {**os.environ, "HF_HOME": str(cwd / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, NAME, kind], env=settings, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


@pytest.fixture
def source(real_data: Callable[[str], Path]) -> str:
    return f"voc:{real_data('bccd_voc')}"


@pytest.mark.slow
def test_the_verbs_from_data_to_the_hub_and_back(
    hub: Any, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.yaml").write_text(RECIPE.format(source=source))
    here("train", "cells.yaml")
    run = tmp_path / "runs/cells"
    trained = json.loads((run / "metrics.json").read_text())
    assert trained["map_50"] > 0.02

    evaluated = json.loads(here("evaluate", "runs/cells", "--json"))
    assert evaluated["map"] == trained["map"]

    here("export", "runs/cells", "--to", "int8")
    exported = json.loads((run / "export.json").read_text())
    assert max(exported["apart"]["onnx"]["box"], exported["apart"]["onnx"]["probability"]) < 1e-3

    printed = detr_ft("push", "runs/cells", NAME, "--dataset", "--space", cwd=tmp_path)
    assert printed.split() == [f"{hub.url}/{place}{NAME}" for place in ("datasets/", "", "spaces/")]
    assert all(hub.repositories[f"{place}{NAME}"].private for place in ("datasets/", "", "spaces/"))

    model = pull("model", tmp_path)
    card = ModelCard.load(model / "README.md")
    assert card.data.eval_results[0].metric_value == round(trained["map"], 4)
    assert (card.data.datasets, card.data.license) == ([NAME], "mit")
    assert (model / "onnx/model_quantized.onnx").is_file()
    assert len(list((model / "examples").glob("*-found.jpg"))) == 4

    with running(pull("space", tmp_path), tmp_path / "environment") as address:
        client = Client(address, verbose=False)
        example = model / "examples/1.jpg"
        assert {one["class"] for one in client.predict(handle_file(example), api_name="/predict")} <= set(
            trained["per_class"]
        )
        truth = [{"class": next(iter(trained["per_class"])), "box": [5, 5, 60, 60]}]
        message = client.predict(handle_file(example), truth, None, api_name="/match")
        assert [pair["object"] for pair in message["pairs"]] == [0]

    back = json.loads(
        detr_ft("evaluate", NAME, "--data", f"hub:{NAME}", "--split", "validation", "--json", cwd=tmp_path)
    )
    assert back["map"] == trained["map"]
    assert back["per_class"] == evaluated["per_class"]
