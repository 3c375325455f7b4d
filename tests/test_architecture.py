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
# Packages that load their public names when these are used: one call of `lazy_names`, the names and their modules.
LAZY_PACKAGES = {PACKAGE / "__init__.py", PACKAGE / "data/__init__.py"}
LAZY_CALL = re.compile(r"__getattr__, __dir__ = lazy_names\(__name__, _MODULES(, distribution='detr-ft')?\)")
MAX_TOP_LEVEL_NAMES = 20
OPEN_ENDED = ("data/sources", "data/writers", "models/families")  # grow by a file for each source, format and family
FILES = range(180, 241)  # in detr_ft and demo, without those
# They end processes whose code hangs, in which an exception has no effect.
ENDING_PROCESSES = {PACKAGE / "training/loader_workers.py", PACKAGE / "training/stopping.py"}
PRINTING = {
    *("print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"),
    *("builtins.print", "builtins.exit", "builtins.quit", "builtins.SystemExit"),
    *("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "rich.print", "Console", "rich.console.Console"),
}

# The rules of transformers for the size of a resized image; they load no model.
IMAGE_SIZE_ARITHMETIC = {"transformers.image_transforms", "transformers.image_utils"}

CRITERION_IMPORTS = {"torch", "numpy", "scipy", "lap"}
FAMILY_ATTRIBUTES = {
    "class_labels_classifier", "bbox_predictor", "query_position_embeddings", "input_projection", "detection_tokens",
    "class_embed", "bbox_embed", "enc_score_head", "enc_bbox_head", "denoising_class_embed", "reference_points",
    "conv_encoder",
}  # fmt: skip
FAMILY_PATHS = ("decoder.layers", "encoder.layers", "decoder.layernorm", "encoder.layer")  # ends of attribute chains


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
    return imports_of(parse(file))


def imports_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else str(node.module)), node.lineno
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"__import__", "builtins.__import__"}, f"line {node.lineno}: {called}"
            if called.rpartition(".")[2] == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), node.lineno


def faults_of_imports(own: str, tree: ast.Module) -> list[str]:
    """Imports of a module in the top-level name `own` that do not go down, with their lines.

    `import detr_ft` and `from detr_ft import train` reach the workflows, so only the command uses them.
    """
    faults = []
    for name, line in imports_of(tree):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top in {"recipes", "demo", "tests", "torchvision", "timm"} - ({"timm"} if own == "models" else set()):
            faults.append(f"{line}: imports {name}")
        elif top != "detr_ft" or own in ENTRY_POINTS or target == own:
            continue
        elif not target:
            if position(own) < position("cli"):
                faults.append(f"{line}: imports the public names of the package")
        elif position(target) >= position(own):
            faults.append(f"{line}: {own} imports {target}, not below it")
    return faults


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
    assert faults_of_imports(own, parse(file)) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import detr_ft", "public names"),
        ("from detr_ft import train", "public names"),
        ("def f():\n    from detr_ft.workflows import train", "imports workflows"),
        ("import importlib\nimportlib.import_module('detr_ft.workflows.train')", "imports workflows"),
        ("from importlib import import_module\nimport_module('detr_ft.cli.app')", "imports cli"),
        ("import tests.support", "imports tests"),
    ],
)
def test_an_import_that_goes_up_is_reported(code: str, message: str) -> None:
    (fault,) = faults_of_imports("models", ast.parse(code))
    assert message in fault


def test_a_hidden_import_is_reported() -> None:
    with pytest.raises(AssertionError, match="__import__"):
        faults_of_imports("models", ast.parse("__import__('detr_ft.cli')"))
    assert faults_of_imports("models", ast.parse("from detr_ft import boxes\nx: 'detr_ft.cli.app'")) == []


def test_no_cycle_between_modules() -> None:
    graph = {name: {target for target, _ in imports(file) if target in MODULES} for name, file in MODULES.items()}
    assert cycles(graph) == []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

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
                components.append(sorted(component))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            visit(node)
    sys.setrecursionlimit(limit)
    return sorted(components)


def test_a_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize("file", [file for file in files_of() if file.name == "__init__.py"], ids=short)
def test_packages_only_re_export(file: Path) -> None:
    assert faults_of_init(parse(file), lazy=file in LAZY_PACKAGES) == []


def faults_of_init(tree: ast.Module, lazy: bool) -> list[str]:
    """Statements of an `__init__.py` that are no docstring, import or list of names."""
    return [ast.unparse(node) for node in tree.body if not re_exports(node) and not (lazy and is_lazy(node))]


def re_exports(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    listed = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    return docstring or listed or isinstance(node, ast.Import | ast.ImportFrom)


def is_lazy(node: ast.stmt) -> bool:
    """Return True for the one call of `lazy_names`, and for the dictionary of names and modules."""
    if not isinstance(node, ast.Assign):
        return False
    modules = ast.unparse(node.targets[0]) == "_MODULES" and isinstance(node.value, ast.Dict)
    literal = modules and all(isinstance(part, ast.Constant) for part in ast.iter_child_nodes(node.value))
    return literal or LAZY_CALL.fullmatch(ast.unparse(node)) is not None


def test_logic_in_a_package_is_reported() -> None:
    code = "_MODULES = {'a': 'b'}\n__getattr__, __dir__ = lazy_names(__name__, _MODULES)\n__all__ = ['a']\n"
    assert faults_of_init(ast.parse(code), lazy=True) == []
    assert len(faults_of_init(ast.parse(code), lazy=False)) == 2
    for line in ("def __getattr__(name):\n    return 1", "_MODULES = dict(a=1)", "_MODULES = {'a': f()}", "x = 1"):
        assert len(faults_of_init(ast.parse(code + line), lazy=True)) == 1


@pytest.mark.parametrize("file", below("cli"), ids=short)
def test_only_the_command_prints_and_exits(file: Path) -> None:
    faults = faults_of_printing(parse(file))
    assert [fault for fault in faults if file not in ENDING_PROCESSES or not fault.endswith(": os._exit")] == []


def faults_of_printing(tree: ast.Module) -> list[str]:
    """Names by which a module prints or exits. A `Console` may be an annotation, and is created by the command."""
    aliases = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    faults = [
        f"{line}: imports {name}" for name, line in imports_of(tree) if name.partition(".")[0] in ("typer", "click")
    ]
    annotations = {
        id(part)
        for node in ast.walk(tree)
        for field in ("annotation", "returns")
        if isinstance(getattr(node, field, None), ast.AST)
        for part in ast.walk(getattr(node, field))
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name | ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and id(node) not in annotations
        ):
            name = ast.unparse(node)
            if name in PRINTING or aliases.get(name) in PRINTING:
                faults.append(f"{node.lineno}: {name}")
    return faults


@pytest.mark.parametrize(
    "code",
    [
        "print('a')",
        "p = print",
        "import builtins\nbuiltins.print('a')",
        "import sys\nsys.stdout.write('a')",
        "import sys\nprint_to = sys.stderr",
        "from sys import stderr\nstderr.write('a')",
        "from rich.console import Console\nConsole().print('a')",
        "from rich import print as show\nshow('a')",
        "quit()",
        "raise SystemExit",
        "error = SystemExit(1)",
        "import typer",
    ],
)
def test_printing_is_reported(code: str) -> None:
    assert len(faults_of_printing(ast.parse(code))) == 1


def run_file_names() -> set[str]:
    """The values of the constants of `run_directory.py`."""
    body = parse(PACKAGE / "run_directory.py").body
    values = [node.value for node in body if isinstance(node, ast.Assign)]
    return {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}


# Files of other formats with the name of a file of a run.
OTHER_FILES = {
    ("detr_ft/data/sources/saved.py", "state.json"),  # of `save_to_disk`
    ("detr_ft/hub/space.py", "README.md"),  # of the Space
}
CODE_FILES = [
    file for file in [*files_of(), *sorted((ROOT / "demo").glob("*.py"))] if file != PACKAGE / "run_directory.py"
]


@pytest.mark.parametrize("file", CODE_FILES, ids=short)
def test_file_names_of_a_run_stand_in_one_module(file: Path) -> None:
    faults = faults_of_file_names(parse(file), run_file_names())
    assert [fault for line, name in faults if (fault := (short(file), name)) not in OTHER_FILES] == []


def faults_of_file_names(tree: ast.Module, names: set[str]) -> list[tuple[int, str]]:
    """File names of a run in strings of code, in f-strings, in regular expressions and in joined paths.

    Docstrings and other strings with spaces are prose, except for names in quotes and in the paths of f-strings.
    """
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    formatted = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    joined = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        for part in (node.left, node.right)
    }
    faults = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docs:
            continue
        text = node.value.replace("\\", "")
        for name in sorted(names):
            word = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
            prose = re.search(r"\s", text) is not None
            if (
                re.search(rf"""["']{re.escape(name)}["']""", text)
                or (id(node) in joined and text == name)
                or ("." in name and not prose and re.search(word, text))
                or (
                    "." not in name
                    and not prose
                    and "/" in text
                    and re.search(rf"(?<![^/|(]){re.escape(name)}(?![^/|)])", text)
                )
                or (id(node) in formatted and re.search(rf"(?<![\w/-]){re.escape(name)}/", text))
            ):
                faults.append((node.lineno, name))
    return faults


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('folder / "examples"', ["examples"]),
        ('path = "run/metrics.json"', ["metrics.json"]),
        ('path = f"{run}/metrics.json"', ["metrics.json"]),
        ('path = f"{run}/examples/{number}.jpg"', ["examples"]),
        ('text = f"![A picture](examples/{name})"', ["examples"]),
        (r'allowed = r"README\.md|metrics\.json|examples/\d+\.jpg"', ["examples", "metrics.json"]),
        ('code = """\nfolder / \'examples\'\n"""', ["examples"]),
        ('columns = {"examples": 1}', []),
        ('"""Write metrics.json and examples."""', []),
        ('raise ValueError("no metrics.json in this folder")', []),
    ],
)
def test_a_file_name_outside_the_module_is_reported(code: str, names: list[str]) -> None:
    faults = faults_of_file_names(ast.parse(code), {"metrics.json", "examples"})
    assert [name for _, name in faults] == names


def test_run_directory_names_what_a_run_has() -> None:
    assert {"metrics.json", "log.jsonl", "recipe.yaml", "report.html", "checkpoints"} <= run_file_names()


def text_of(node: ast.AST) -> str:
    """The text of a string, also of a concatenation or an f-string; its other parts are empty."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "".join(map(text_of, node.values)) if isinstance(node, ast.JoinedStr) else ""


def family_attributes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The attributes of a model family that a module names, with the line: as attribute, path or part of a string."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node)
            if node.attr in FAMILY_ATTRIBUTES or path.endswith(FAMILY_PATHS):
                yield node.lineno, path
        elif isinstance(node, ast.expr) and id(node) not in docstrings:
            text = text_of(node).replace("\\", "")  # also patterns
            if set(re.findall(r"\w+", text)) & FAMILY_ATTRIBUTES or any(path in text for path in FAMILY_PATHS):
                yield node.lineno, text


@pytest.mark.parametrize(
    "file",
    [
        file
        for file in [*files_of(), *sorted((ROOT / "demo").glob("*.py"))]
        if PACKAGE / "models/families" not in file.parents
    ],
    ids=short,
)
def test_attributes_of_a_family_stand_in_families(file: Path) -> None:
    assert [f"{short(file)}:{line}: {text}" for line, text in family_attributes(parse(file))] == []


@pytest.mark.parametrize(
    "code",
    [
        "model.class_embed",
        "layers = model.model.decoder.layers",
        "decoder.layers[:2]",
        "path = 'model.backbone.conv_encoder.model'",
        "path = r'backbone(?:\\.conv_encoder)?'",
        "getattr(model, 'class_labels' + '_classifier')",
        "model.get_submodule(f'{part}.bbox_predictor')",
        "getattr(model, 'conv' + f'_encoder')",
        "path = 'model.decoder' '.layers'",
    ],
)
def test_a_family_attribute_is_found(code: str) -> None:
    assert list(family_attributes(ast.parse(code)))


def test_names_in_prose_are_no_attributes() -> None:
    assert not list(
        family_attributes(ast.parse('def f(decoder):\n    """Use conv_encoder."""\n    return decoder.shape'))
    )


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
    growing = {PACKAGE / name for name in OPEN_ENDED}
    files = [file for file in [*files_of(), *(ROOT / "demo").glob("*.py")] if file.parent not in growing]
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
