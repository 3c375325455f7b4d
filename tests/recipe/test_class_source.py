"""Classes of a script as a module of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = '''\
"""Trains with its own cost."""
from __future__ import annotations
import math as m
from dataclasses import dataclass

import torch

SCALE = 2.0
unused = open  # of the script alone


def scaled(x):
    return SCALE * m.sqrt(x)


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
    run(tmp_path, "from pathlib import Path\nPath('terms.py').write_text(standalone_source([Mine]))")
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
    code = f"{use}\ntry:\n    standalone_source([kind])\nexcept LookupError as error:\n    print(error)"
    assert reason in run(tmp_path, code)
