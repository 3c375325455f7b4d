"""Imports go down only: a module imports from its own floor's rooms by name, or from floors below."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "detr_ft"
FLOORS = {
    "__init__": 0, "boxes": 0, "errors": 0, "places": 0, "ranks": 0, "energy": 0, "located_yaml": 1, "structures": 1, "drawing": 1,
    "criterion": 2, "data": 2,
    "models": 3, "evaluation": 3,
    "inference": 4, "speed": 4, "inside": 4, "side_by_side": 4, "training": 5, "report": 5,
    "recipe": 6, "console": 6, "hub": 6, "scoring": 6, "kept": 6, "examples": 6, "prepare": 7, "resume": 7, "chosen": 8, "summary": 8, "run": 9, "quickstart": 10, "new": 10, "preview": 10,
    "evaluating": 10, "trained": 10, "comparing": 11, "exporting": 11, "verbs": 11, "examination": 12, "cli": 13, "__main__": 14,
}  # fmt: skip
CRITERION_MAY_IMPORT = {"torch", "scipy", "numpy", "detr_ft", "lap"}  # the last where it is installed


def room(name: str) -> str:
    """The first part below the package."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "detr_ft" else {module}
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(file):
        top = name.split(".")[0]
        assert top not in {"recipes", "demo", "tests", "torchvision", "timm"}, f"{file}: imports {name}"
        if top == "detr_ft" and room(name) != own:
            assert FLOORS[room(name)] < FLOORS[own], f"{file}: {own} is below or beside {name}"


def test_the_criterion_stands_alone() -> None:
    import sys

    allowed = CRITERION_MAY_IMPORT | set(sys.stdlib_module_names)
    for file in (PACKAGE / "criterion").glob("*.py"):
        for name in imports(file):
            assert name.split(".")[0] in allowed, f"{file}: imports {name}"
            if name.startswith("detr_ft"):
                assert room(name) in {"criterion", "boxes", "structures"}, f"{file}: imports {name}"
