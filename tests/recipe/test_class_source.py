"""Classes of a script as a module of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from detr_ft.criterion.matchers import costs_of
from detr_ft.recipe.load import build_file
from detr_ft.run_directory import RunDirectory

SCRIPT = '''\
"""Trains with its own cost."""
from __future__ import annotations
import math as m
from dataclasses import dataclass

import torch

SCALE, (_, OFFSET) = 2.0, (1, 0.0)
unused = open  # of the script alone


def scaled(x):
    return SCALE * m.sqrt(x) + OFFSET


class Base:
    def twice(self, x):
        return [scaled(y) for y in (x, x)]


@dataclass(frozen=True)
class Mine(Base):
    weight: float = 1.0

    def __call__(self, x: torch.Tensor):
        return self.twice(x)


print("training")
from detr_ft.recipe.class_source import standalone_source
{use}
'''


def run(tmp_path: Path, use: str) -> str:
    (tmp_path / "script.py").write_text(SCRIPT.replace("{use}", use))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_class_is_written_with_everything_that_it_uses(tmp_path: Path) -> None:
    run(tmp_path, "from pathlib import Path\nPath('terms.py').write_text(standalone_source(['Mine']))")
    text = (tmp_path / "terms.py").read_text()
    assert "training" not in text
    assert "unused" not in text
    namespace: dict[str, object] = {"__name__": "terms"}
    module = compile(text, "terms.py", "exec")
    sys.modules["terms"] = type(sys)("terms")
    try:
        exec(module, namespace)  # noqa: S102 - what is tested
    finally:
        del sys.modules["terms"]
    assert namespace["Mine"](3.0)(4.0) == [4.0, 4.0]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("def f():\n    class Inner: pass\n    return Inner\nmake = f()\nkind = make", "top level"),
        ("for value in (1,):\n    hidden = value\nclass kind:\n    def f(self): return hidden", "'hidden'"),
    ],
)
def test_a_class_that_cannot_be_written_has_a_reason(tmp_path: Path, use: str, reason: str) -> None:
    code = f"{use}\ntry:\n    standalone_source(['kind'])\nexcept LookupError as error:\n    print(error)"
    assert reason in run(tmp_path, code)


def test_the_cells_of_a_notebook_are_the_source(tmp_path: Path) -> None:
    cells = [
        "",
        "%matplotlib inline",
        "import math",
        "SCALE = 1 +",
        "SCALE = 3",
        "class Mine:\n    size = math.pi * SCALE",
    ]
    code = (
        f"from detr_ft.recipe.class_source import standalone_source\nIn = {cells}\nprint(standalone_source(['Mine']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n\n\n") == ["import math", "SCALE = 3", "class Mine:\n    size = math.pi * SCALE\n\n"]
    without = code.replace("In = ", "cells = ")
    failed = subprocess.run([sys.executable, "-c", without], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "LookupError: the source of the program is in no file" in failed.stderr


TRAINING = """\
from dataclasses import dataclass
from pathlib import Path

from detr_ft.criterion import BoxL1Loss, ClassCost, HungarianMatcher, SetCriterion
from detr_ft.recipe.code import RecipeCode
from detr_ft.recipe.load import build_values
from detr_ft.run_directory import RunDirectory


@dataclass(frozen=True)
class CenterCost:
    weight: float = 2.0

    def __call__(self, predictions, targets):
        return (predictions.boxes[:, targets.image, :, :2] - targets.boxes[:, None, :2]).abs().sum(-1)


values = {"model": {"checkpoint": "embedded:small"}, "data": {"source": "generated:workshop"}, "train": {"output_dir": "run"}}
built = build_values(values).with_criterion(SetCriterion(HungarianMatcher([ClassCost(), CenterCost()]), [BoxL1Loss()]))
code = RecipeCode.read(built)
run = RunDirectory(Path("run"))
run.create()
run.write_text("recipe.yaml", code.recorded(built, run.path).to_yaml())
code.write(built, run)
"""


def test_a_run_has_the_terms_of_the_script_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TRAINING)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, check=True)
    matcher = build_file(tmp_path / "run/recipe.yaml").criterion.matcher
    costs = [(type(cost).__name__, cost.weight) for cost in costs_of(matcher)]
    assert costs == [("ClassCost", 1.0), ("CenterCost", 2.0)]
    assert [file.name for file in RunDirectory(tmp_path / "run").code_files()] == ["terms.py"]


def test_terms_without_source_are_reported(tmp_path: Path) -> None:
    code = f"import logging\nlogging.basicConfig()\n{TRAINING}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Move CenterCost to a file" in done.stderr
    assert list((tmp_path / "run").glob("*.py")) == []
