"""Tiny models and data that every test may use."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig
from transformers import logging as transformers_logging

ROOT = Path(__file__).resolve().parents[1]

# The record of trained runs stays out of the home folder, also in processes that tests start with this environment.
_STATE = tempfile.TemporaryDirectory(prefix="detr-ft-state-")
atexit.register(_STATE.cleanup)
os.environ["XDG_STATE_HOME"] = _STATE.name
transformers_logging.disable_progress_bar()
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
# Several test processes run beside each other; with more threads than cores they wait for one another.
torch.set_num_threads(1)

TINY = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 8,
}


def tiny_config(auxiliary_loss: bool = False, names: tuple[str, ...] = ("cat", "dog", "owl")) -> DetrConfig:
    """A DETR of about 30,000 parameters with a native backbone of stride 8."""
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    labels = dict(enumerate(names))
    return DetrConfig(
        backbone_config=backbone,
        auxiliary_loss=auxiliary_loss,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
        **TINY,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with slow tests first, so that the processes end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def check_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `detr-ft check` run in this process, for tests of its messages: a child loads the libraries again."""
    from detr_ft.cli import check_process
    from detr_ft.cli.child_process import ChildOutcome

    def run(module: str, request: dict[str, object], seconds: float | None = None) -> ChildOutcome:
        return ChildOutcome(check_process._run_verb(request), "", timed_out=False, output="")

    monkeypatch.setattr(check_process, "run_child", run)


@pytest.fixture(autouse=True)
def short_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the measurements of speed at the end of runs and exports, whose values the tests do not use."""
    monkeypatch.setattr("detr_ft.models.benchmark._SPEED_SECONDS", 0.05)
    monkeypatch.setattr("detr_ft.models.benchmark._RUNTIME_SECONDS", 0.05)


@pytest.fixture
def tiny_model() -> DetrForObjectDetection:
    """Random weights, the same at every call, with a final norm that is not the identity it starts as."""
    torch.manual_seed(0)
    model = DetrForObjectDetection(tiny_config())
    with torch.no_grad():
        model.model.decoder.layernorm.weight.normal_(1, 0.3)
        model.model.decoder.layernorm.bias.normal_(0, 0.3)
    return model


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and its processor, as a user's checkpoint would be."""
    folder = tmp_path_factory.mktemp("tiny-checkpoint")
    torch.manual_seed(0)
    DetrForObjectDetection(tiny_config()).save_pretrained(folder)
    DetrImageProcessor(size={"max_height": 64, "max_width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set; skips where it is absent."""
    root = Path(os.environ.get("DETR_FT_TEST_DATA") or ROOT.parent / "shared" / "data")

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"real data is absent: {root / name} (DETR_FT_TEST_DATA names the folder that holds it)")
        return root / name

    return find
