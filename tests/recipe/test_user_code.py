"""Exceptions of the code that a recipe names are mistakes of the recipe, SystemExit and others included."""

from __future__ import annotations

from pathlib import Path

import pytest

import detr_ft
from detr_ft.errors import InputError
from detr_ft.recipe.load import load_recipe
from detr_ft.workflows.run import build_recipe, check_augmentation

RECIPE = """\
model: {checkpoint: embedded:small}
data:
  source: generated:shapes
AUGMENT
criterion:
  matcher: {use: HungarianMatcher}
  losses:
    - {use: CrossEntropyLoss}
LOSS
train: {output_dir: run}
"""
TERM = """\
import os, signal, sys
from dataclasses import dataclass
from typing import ClassVar
from detr_ft.criterion import BoxL1Loss

class OwnError(BaseException):
    pass

IMPORT

@dataclass(frozen=True)
class Term:
    weight: float = 1.0
    name: ClassVar[str] = "loss_term"

    def __post_init__(self):
        INIT

    def __call__(self, predictions, targets, matches):
        CALL
        return BoxL1Loss()(predictions, targets, matches)
"""
AUGMENT = """\
import sys
from dataclasses import dataclass
from detr_ft.errors import InputError

@dataclass(frozen=True)
class Augment:
    def __len__(self):
        return 0  # false, as an empty list is

    def __call__(self, sample, random, another):
        CALL
        return sample
"""
ENDINGS = {
    "sys.exit(0)": "SystemExit: 0",
    "raise SystemExit": "SystemExit: ",
    "raise KeyboardInterrupt": "KeyboardInterrupt: ",
    "raise GeneratorExit": "GeneratorExit: ",
    "raise OwnError('mine')": "OwnError: mine",
    "raise RuntimeError('mine')": "RuntimeError: mine",
    "exit()": "SystemExit: ",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(loss: str = "", augment: str = "", **places: str) -> tuple[Path, str]:
    """Write a recipe with a file of a term, and return it with the line of the code of a place in that file."""
    entry = f'    - {{use: "{loss}"}}' if loss else ""
    section = f'  augment: {{use: "{augment}"}}' if augment else ""
    Path("recipe.yaml").write_text(RECIPE.replace("LOSS", entry).replace("AUGMENT", section))
    text = AUGMENT if augment else TERM
    for place in ("IMPORT", "INIT", "CALL"):
        text = text.replace(place, f"{places[place]}  # here" if place in places else "pass")
    Path("code.py" if augment else "term.py").write_text(text)
    line = next((number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# here")), 0)
    return Path("recipe.yaml"), f"({'code' if augment else 'term'}.py, line {line})"


@pytest.mark.parametrize("place", ["IMPORT", "INIT", "CALL"])
@pytest.mark.parametrize("code", ENDINGS)
def test_every_ending_of_a_term_is_a_problem_with_file_and_line(folder: Path, code: str, place: str) -> None:
    recipe, line = write("term.py:Term", **{place: code})
    problems = detr_ft.check(recipe).problems
    assert problems
    for problem in problems:
        assert ENDINGS[code] in problem
        assert line in problem
    if place != "CALL":
        with pytest.raises(InputError, match=r"recipe\.yaml:9: criterion\.losses\.1"):
            load_recipe(recipe)


@pytest.mark.parametrize(
    "code", ["sys.exit(0)", "raise KeyboardInterrupt", "raise GeneratorExit", "raise InputError('')"]
)
def test_every_ending_of_an_augmentation_is_a_problem(folder: Path, code: str) -> None:
    recipe, line = write(augment="code.py:Augment", CALL=code)
    (problem,) = detr_ft.check(recipe).problems
    assert "data.augment: Augment() failed: " in problem
    assert line in problem
    with pytest.raises(InputError, match=r"data\.augment: Augment\(\) failed"):
        check_augmentation(build_recipe(load_recipe(recipe)))


@pytest.mark.parametrize("code", ["sys.exit(0)", "raise KeyboardInterrupt", "raise RuntimeError"])
def test_a_module_and_a_property_are_no_exception(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    write("endingmodule:Term")
    Path("endingmodule.py").write_text(f"import sys\n{code}\n")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(InputError, match=r"criterion\.losses\.1\.use: endingmodule: .*\(endingmodule\.py, line 2\)"):
        load_recipe(Path("recipe.yaml"))
    write("term.py:Term")
    text = Path("term.py").read_text().replace('name: ClassVar[str] = "loss_term"', "name = property(ending)")
    Path("term.py").write_text(f"import sys\ndef ending(self):\n    {code}\n{text}")
    with pytest.raises(InputError, match=r"recipe\.yaml:5: criterion: .*\(term\.py, line 3\)"):
        load_recipe(Path("recipe.yaml"))


@pytest.mark.parametrize(
    ("name", "words"), [(":Term", "Empty module name"), (".x:Term", "TypeError"), ("term.py:OBJECT", "no dataclass")]
)
def test_names_without_a_class_are_problems(folder: Path, name: str, words: str) -> None:
    recipe, _ = write(name, IMPORT="OBJECT = BoxL1Loss()")
    with pytest.raises(InputError, match=words):
        load_recipe(recipe)


def test_ctrl_c_still_interrupts(folder: Path) -> None:
    for place in ("IMPORT", "INIT", "CALL"):
        recipe, _ = write("term.py:Term", **{place: "os.kill(os.getpid(), signal.SIGINT)"})
        with pytest.raises(KeyboardInterrupt):
            detr_ft.check(recipe)
    recipe, _ = write(augment="code.py:Augment", CALL="import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        detr_ft.check(recipe)
