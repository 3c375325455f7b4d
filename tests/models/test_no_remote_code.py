"""Code beside a checkpoint never runs, whatever its JSON files name and the user types."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models.load import (
    empty_model,
    load_config_and_processor,
    load_detector,
    load_model,
    local_family,
    num_queries_of,
)

CODE = """
from pathlib import Path

Path({canary!r}).touch()


class Config:
    pass


class Model:
    pass


class Processor:
    pass
"""
AUTO_MAP = {
    "config.json": {"AutoConfig": "beside.Config", "AutoModelForObjectDetection": "beside.Model"},
    "preprocessor_config.json": {"AutoImageProcessor": "beside.Processor"},
}
LOADERS: dict[str, Callable[[str], Any]] = {
    "load_model": load_model,
    "load_detector": load_detector,
    "load_config_and_processor": load_config_and_processor,
    "empty_model": empty_model,
    "num_queries_of": num_queries_of,
    "local_family": local_family,
    "Detector.load": Detector.load,
}
# Loaders that need no code: they read a config that is written in JSON, or return None for one that they don't know.
READS = {
    ("num_queries_of", "config"),
    ("local_family", "config"),
    ("num_queries_of", "preprocessor_config"),
    ("local_family", "preprocessor_config"),
    ("empty_model", "preprocessor_config"),
}


@pytest.fixture
def with_code(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A checkpoint with code beside it, whose JSON files have other values; every prompt gets y."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")

    def make(**changes: dict[str, str]) -> Path:
        folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
        (folder / "beside.py").write_text(CODE.format(canary=str(tmp_path / "canary")))
        for name, auto_map in AUTO_MAP.items():
            content = json.loads((folder / name).read_text())
            content |= {"auto_map": auto_map} | changes.get(name.partition(".")[0], {})
            (folder / name).write_text(json.dumps(content))
        return folder

    return make


@pytest.mark.parametrize("name", LOADERS)
def test_the_code_beside_a_known_architecture_is_ignored(
    with_code: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    assert LOADERS[name](str(with_code())) is not None
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"model_type": "beside"}},
        {"preprocessor_config": {"image_processor_type": "Beside"}},
    ],
    ids=["model", "processor"],
)
def test_an_architecture_that_needs_its_code_is_refused(
    with_code: Callable[..., Path], tmp_path: Path, name: str, changes: dict[str, dict[str, str]]
) -> None:
    if (name, *changes) in READS:
        LOADERS[name](str(with_code(**changes)))
    else:
        with pytest.raises(InputError, match=r"auto_map|not supported") as caught:
            LOADERS[name](str(with_code(**changes)))
        assert "trust_remote_code" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("place", ["config", "backbone"])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("owner/kernel", "owner/kernel"),
        ("owner/kernel@main:name", "owner/kernel@main:name"),
        ({"": "owner/kernel"}, "owner/kernel"),
        ("flash_attention_2", "flash_attention_2"),  # of a repository, if the package kernels is installed
    ],
)
def test_attention_kernels_of_the_hub_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, place: str, value: object, name: str
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    content = json.loads((folder / "config.json").read_text())
    (content if place == "config" else content["backbone_config"])["attn_implementation"] = value
    (folder / "config.json").write_text(json.dumps(content))
    for load in (load_model, load_detector, load_config_and_processor, empty_model):
        with pytest.raises(InputError, match=f"{name} is code of the Hub"):
            load(str(folder))
