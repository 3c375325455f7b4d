"""The layers of the package and what each may contain.   python tests/test_architecture.py   writes CONTRIBUTING's table

A module imports from lower layers and from its own package only, wherever the import stands.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "detr_ft"


class Layer(NamedTuple):
    names: tuple[tuple[str, ...], ...]  # rows: modules of a row import those of earlier rows
    contents: str

    @property
    def all_names(self) -> set[str]:
        return {name for row in self.names for name in row}


LAYERS = (  # from the lowest
    Layer(
        (("boxes", "errors"), ("utils",), ("structures", "run_directory")),
        "box formats and IoU; `Predictions`, `Targets`, `Matches`, `Detections`; exceptions; file names of a run; helpers",
    ),
    Layer((("criterion", "data"),), "costs, matchers, losses; reading, checking and feeding data"),
    Layer(
        (("models", "evaluation"),), "transformers models and their families; COCO metrics and what follows from them"
    ),
    Layer((("training", "inference", "report"),), "the loop on accelerate; `Detector`; HTML pages"),
    Layer((("recipe", "hub"),), "YAML to typed recipe to objects; model card, push, Space"),
    Layer((("workflows",),), "one module per verb: a function that returns a dataclass and prints nothing"),
    Layer((("cli", "demo"),), "arguments, terminal output, the Gradio app"),
)
ENTRY_POINTS = {"__init__", "__main__"}
LAZY_PACKAGES = {PACKAGE / "__init__.py", PACKAGE / "data/__init__.py"}  # load their public names when these are used
MAX_TOP_LEVEL_NAMES = 20
FILES = range(200, 261)  # in detr_ft and demo

# The rules of transformers for the size of a resized image; they load no model.
IMAGE_SIZE_ARITHMETIC = {"transformers.image_transforms", "transformers.image_utils"}

CRITERION_IMPORTS = {"torch", "numpy", "scipy", "lap"}
FAMILY_ATTRIBUTES = {
    "class_labels_classifier", "bbox_predictor", "query_position_embeddings", "input_projection", "detection_tokens",
    "class_embed", "bbox_embed", "enc_score_head", "enc_bbox_head", "denoising_class_embed", "reference_points",
}  # fmt: skip


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def files_of(*names: str) -> list[Path]:
    """The Python files of top-level names of the package, or of all of it."""
    if not names:
        return sorted(PACKAGE.rglob("*.py"))
    return sorted(
        file for name in names for file in [*(PACKAGE / name).rglob("*.py"), PACKAGE / f"{name}.py"] if file.is_file()
    )


def below(layer: str) -> list[Path]:
    """The files of all layers lower than the one that holds a name."""
    index = next(index for index, one in enumerate(LAYERS) if layer in one.all_names)
    return [file for one in LAYERS[:index] for name in sorted(one.all_names) for file in files_of(name)]


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file): file for file in files_of()}


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Each imported module with its line: of the package the module that defines it, also inside functions."""
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else str(node.module)), node.lineno


def position(name: str) -> tuple[int, int]:
    """Layer and row of a top-level name."""
    for index, layer in enumerate(LAYERS):
        for row, names in enumerate(layer.names):
            if name in names:
                return index, row
    raise AssertionError(f"detr_ft.{name} belongs to no layer: choose a package of tests/test_architecture.py")


def short(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", files_of(), ids=short)
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name, line in imports(file):
        top, _, rest = name.partition(".")
        assert top not in {"recipes", "demo", "tests", "torchvision", "timm"}, f"{short(file)}:{line}: imports {name}"
        if top == "detr_ft" and own not in ENTRY_POINTS and rest.partition(".")[0] != own and rest:
            target = rest.partition(".")[0]
            assert position(target) < position(own), f"{short(file)}:{line}: {own} imports {target}, not below it"


def test_no_cycle_between_modules() -> None:
    graph = {name: {target for target, _ in imports(file) if target in MODULES} for name, file in MODULES.items()}
    assert cycles(graph) == []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            component = []
            while True:
                component.append(stack.pop())
                if component[-1] == node:
                    break
            if len(component) > 1:
                found.append(sorted(component))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    sys.setrecursionlimit(limit)
    return sorted(found)


def test_a_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize("file", [file for file in files_of() if file.name == "__init__.py"], ids=short)
def test_packages_only_re_export(file: Path) -> None:
    if file in LAZY_PACKAGES:
        return  # tests/test_public_api.py
    for node in parse(file).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        listed = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert docstring or listed or isinstance(node, ast.Import | ast.ImportFrom), f"{short(file)}:{node.lineno}"


@pytest.mark.parametrize("file", below("cli"), ids=short)
def test_only_the_command_prints_and_exits(file: Path) -> None:
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "sys.exit", "exit", "os._exit"}, f"{short(file)}:{node.lineno}: {called}"
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert not ast.unparse(node.exc).startswith("SystemExit"), f"{short(file)}:{node.lineno}: exits"
    assert "typer" not in {name.partition(".")[0] for name, _ in imports(file)}, f"{short(file)}: imports typer"


def run_file_names() -> set[str]:
    """The values of the constants of `run_directory.py`."""
    body = parse(PACKAGE / "run_directory.py").body
    values = [node.value for node in body if isinstance(node, ast.Assign)]
    return {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}


@pytest.mark.parametrize("file", [file for file in files_of() if file.name != "run_directory.py"], ids=short)
def test_file_names_of_a_run_stand_in_one_module(file: Path) -> None:
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search(r"[./]", node.value):
            assert node.value not in run_file_names(), f"{short(file)}:{node.lineno}: {node.value!r}"


def test_run_directory_names_what_a_run_has() -> None:
    assert {"metrics.json", "log.jsonl", "recipe.yaml", "report.html", "checkpoints"} <= run_file_names()


@pytest.mark.parametrize(
    "file", [file for file in files_of() if PACKAGE / "models/families" not in file.parents], ids=short
)
def test_attributes_of_a_family_stand_in_families(file: Path) -> None:
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in FAMILY_ATTRIBUTES, f"{short(file)}:{node.lineno}: .{node.attr}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = set(re.split(r"[.\s]+", node.value)) if "\n" not in node.value else set()
            assert not parts & FAMILY_ATTRIBUTES, f"{short(file)}:{node.lineno}: {node.value!r}"


@pytest.mark.parametrize("file", files_of("criterion"), ids=short)
def test_the_criterion_stands_alone(file: Path) -> None:
    allowed = CRITERION_IMPORTS | set(sys.stdlib_module_names)
    for name, line in imports(file):
        if name.startswith("detr_ft"):
            inside = name.split(".")[1:2]
            assert inside, f"{short(file)}:{line}"
            assert inside[0] in {"criterion", "boxes", "structures", "errors", "utils"}, f"{short(file)}:{line}: {name}"
        else:
            assert name.partition(".")[0] in allowed, f"{short(file)}:{line}: imports {name}"


def test_data_know_no_model() -> None:
    for file in files_of("data"):
        for name, line in imports(file):
            allowed = name.partition(".")[0] != "transformers" or name in IMAGE_SIZE_ARITHMETIC
            assert allowed, f"{short(file)}:{line}: imports {name}"


def test_the_top_level_is_small() -> None:
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert len(names) <= MAX_TOP_LEVEL_NAMES
    assert names - ENTRY_POINTS <= {name for layer in LAYERS for name in layer.all_names}


def test_the_number_of_files_is_readable() -> None:
    files = [*files_of(), *(ROOT / "demo").glob("*.py")]
    assert len([file for file in files if file.stat().st_size]) in FILES  # an empty `__init__.py` is nothing to read


MARKERS = ("<!-- layers: python tests/test_architecture.py -->", "<!-- end of layers -->")


def table(layers: Sequence[Layer] = LAYERS) -> str:
    """The layers as a Markdown table, the highest first."""
    lines = ["| layer | packages and modules | contents |", "|---|---|---|"]
    for number, layer in reversed(list(enumerate(layers))):
        names = " ".join(
            f"`{name}/`" if not (PACKAGE / f"{name}.py").is_file() else f"`{name}`" for name in sum(layer.names, ())
        )
        lines.append(f"| {number} | {names} | {layer.contents} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """A page with the table between its markers renewed."""
    before, _, rest = text.partition(MARKERS[0])
    return f"{before}{MARKERS[0]}\n\n{table()}\n\n{MARKERS[1]}{rest.partition(MARKERS[1])[2]}"


def test_contributing_has_this_table() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert page == with_table(page), "run: python tests/test_architecture.py"


if __name__ == "__main__":
    target = ROOT / "CONTRIBUTING.md"
    target.write_text(with_table(target.read_text(encoding="utf-8")), encoding="utf-8")
