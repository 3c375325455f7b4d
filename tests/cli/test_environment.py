"""Every verb names packages that do not fit together, with their versions and the command that repairs them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support.broken_packages import install

from detr_ft.cli.app import _VERBS

RECIPE = "recipe.yaml"
ARGUMENTS = {
    "quickstart": ["--output-dir", "run"],
    "doctor": ["generated:shapes"],
    "new": ["generated:shapes"],
    "check": [RECIPE],
    "train": [RECIPE],
    "replay": ["run"],
    "evaluate": ["embedded:small", "--data", "generated:shapes?train=2&validation=2&edge=64"],
    "compare": ["embedded:small", "embedded:small", "--data", "generated:shapes?train=2&validation=2&edge=64"],
    "predict": ["embedded:small", "image.png"],
    "demo": ["embedded:small"],
    "push": ["run", "owner/name", "--dry-run"],
    "export": ["embedded:small", "--to", "torch", "--data", "generated:shapes?train=2&validation=2&edge=64"],
}
NEEDS_NO_MODEL = {"push"}  # a dry run reads names of files
_QUICK = ("doctor", "predict")


def test_the_table_has_every_verb() -> None:
    assert {verb.__name__ for verb in _VERBS} == set(ARGUMENTS)


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb, marks=[] if verb in _QUICK else pytest.mark.slow)
        for verb in ARGUMENTS
        if verb not in NEEDS_NO_MODEL
    ],
)
def test_a_build_for_another_torch_is_named(verb: str, tmp_path: Path) -> None:
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    path = install(tmp_path, "torchvision", code, "torch==2.5.1")
    (tmp_path / RECIPE).write_text(
        "model: {checkpoint: embedded:small}\ndata: {source: generated:shapes}\ntrain: {output_dir: run}\n"
    )
    (tmp_path / "run").mkdir()
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "detr_ft", verb, *ARGUMENTS[verb]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, str(path)]), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"torchvision 0.20.1 needs torch==2.5.1, and torch {version('torch')} is installed" in done.stderr
    assert "pip install --upgrade" in done.stderr
    assert "Traceback" not in done.stderr
