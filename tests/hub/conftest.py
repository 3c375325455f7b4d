"""A run directory as training leaves it, with a tiny random model, and a Hub on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hub.loopback import serve

TOKEN = "hf_" + "loopbackTokenForTests" + "0" * 13


@pytest.fixture
def token() -> str:
    return TOKEN


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str) -> Iterator[object]:
    """A Hub that accepts `token`, and an environment in which pushes go to it; no token of the machine is seen."""
    monkeypatch.setattr("detr_ft.utils.hub._RETRY_WAITS_SECONDS", (0.0, 0.0))
    with serve(token) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", token)
        yield server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved, random DETR of two classes with its image processor."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny")
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    config = DetrConfig(
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        id2label={0: "bolt", 1: "nut"},
        label2id={"bolt": 0, "nut": 1},
    )
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Path:
    """A run directory as training leaves it, with private files in it."""
    folder = shutil.copytree(tiny_model, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["detr_ft"] = {
        "criterion": {"matcher": {"use": "HungarianMatcher", "costs": [{"use": "ClassCost", "weight": 1}]}},
        "base_model": "facebook/detr-resnet-50",
    }
    (folder / "config.json").write_text(json.dumps(config))
    per_class = {"bolt": {"map": 0.5, "map_50": 0.75, "mar_100": 0.6, "count": 12}, "nut": {"map": -1, "count": 0}}
    metrics = {"map": 0.512, "map_50": 0.8, "map_75": 0.55, "mar_100": 0.6, "map_small": -1, "per_class": per_class}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    recipe = {
        "model": {"checkpoint": "facebook/detr-resnet-50"},
        "data": {"source": "coco:/home/me/private/parts.json"},
        "train": {"output_dir": "runs/parts"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "report.html").write_text("<html></html>")
    for name in (".env", "id_rsa", "training_args.bin", "log.jsonl", "weights.pt", "data.zip", "model.safetensors.bak"):
        (folder / name).write_text("planted")
    for name in ("onnx/model.onnx", "onnx/notes.txt", "examples/1.jpg", "examples/1-found.jpg", "examples/me.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not empty")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "config.json").write_text("{}")
    return folder
