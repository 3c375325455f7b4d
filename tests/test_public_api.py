"""The public names of `import detr_ft`.   python tests/test_public_api.py   writes their stub and their list with signatures"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest
from pydantic import BaseModel

import detr_ft
from detr_ft import data
from detr_ft.cli.app import app
from detr_ft.training.settings import TrainSettings
from detr_ft.workflows.train import TrainOptions

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests/public_api.txt"
STUB = ROOT / "detr_ft/__init__.pyi"
HEAVY = ("torch", "transformers", "datasets", "accelerate", "numpy", "pydantic", "PIL", "rich", "typer")
# Verbs whose function has another name, and the demo, which is an app and no function.
PROTOCOLS = {"__call__", "__getitem__", "__iter__", "__len__"}
FUNCTIONS = {"new": "new_recipe"}
APPS = {"demo"}
# Options of the command that choose the form of its output, and a flag that runs a second function.
OUTPUT_OPTIONS = {"as_json"}
OTHER_FUNCTIONS = {("check", "probe"), ("check", "time_limit")}  # the limit is that of the process of the command


def functions_of_verbs() -> dict[str, str]:
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    return {name: FUNCTIONS.get(name, name) for name in names if name not in APPS}


def parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    annotation = one.annotation if isinstance(one.annotation, str) else inspect.formatannotation(one.annotation)
    text = stars + one.name + ("" if one.annotation is one.empty else f": {annotation}")
    return text if one.default is one.empty else f"{text} = {one.default!r}"


def signature(value: typing.Any, name: str) -> Iterator[str]:
    """A function or class with a line for each parameter."""
    described = inspect.signature(value)
    parameters = [one for one in described.parameters.values() if one.name not in ("self", "cls")]
    keyword_only = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    variadic = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    returned = described.return_annotation
    shown = returned if isinstance(returned, str) else inspect.formatannotation(returned)
    end = ")" if returned is described.empty or inspect.isclass(value) else f") -> {shown}"
    yield f"{name}(" + ("" if parameters else end)
    for one in parameters:
        if not variadic and keyword_only[:1] == [one.name]:
            yield "    *,"
        yield f"    {parameter(one)},"
    if parameters:
        yield end


def fields(kind: type[BaseModel]) -> Iterator[str]:
    """The fields of a model as its source writes them: releases of pydantic show them in different forms."""
    for name, field in kind.model_fields.items():
        default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
        yield f"    {name}: {kind.__annotations__[name]}{default}"


def members(kind: type) -> Iterator[tuple[str, typing.Any]]:
    """Public methods and properties of a class, those of our own bases too."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("detr_ft")]
    names = {name for base in ours for name in vars(base) if not name.startswith("_") or name in PROTOCOLS}
    for name in sorted(names - {"model_config", "model_post_init"}):
        yield name, inspect.getattr_static(kind, name)


def described(name: str) -> Iterator[str]:
    value = getattr(detr_ft, name)
    if not inspect.isclass(value):
        yield from signature(value, name)
        return
    if issubclass(value, BaseException):
        yield f"exception {name}({value.__bases__[0].__name__})"
        return
    if issubclass(value, BaseModel):
        yield f"class {name}"
        yield from fields(value)
    else:
        yield from signature(value, f"class {name}")
    for member, method in members(value):
        if isinstance(method, classmethod | staticmethod):
            method = method.__func__
        if isinstance(method, FunctionType):
            yield from (f"    {line}" for line in signature(method, f".{member}"))
        elif isinstance(method, property):
            yield f"    .{member}"


def text() -> str:
    return "\n\n".join("\n".join(described(name)) for name in detr_ft.__all__) + "\n"


def test_signatures_are_as_listed() -> None:
    assert text() == LIST.read_text(encoding="utf-8"), "if the change is intended: python tests/test_public_api.py"


def test_names_are_sorted_and_complete() -> None:
    assert detr_ft.__all__ == sorted(set(detr_ft.__all__))
    assert dir(detr_ft) == sorted([*detr_ft.__all__, "__version__"])
    assert isinstance(detr_ft.__version__, str)
    with pytest.raises(AttributeError, match="nothing"):
        detr_ft.nothing  # noqa: B018


def stub() -> str:
    """The stub of the package, from its dictionary of names and modules."""
    imports: dict[tuple[str, str], list[str]] = {}  # by module and, where the name differs there, the original
    for name, target in detr_ft._MODULES.items():
        module, _, original = target.partition(":")
        imports.setdefault((module, original), []).append(f"{original} as {name}" if original else name)
    lines = [
        f"from {module} import {', '.join(sorted(names))}"
        for (module, _), names in sorted(imports.items(), key=lambda item: (item[0][0], item[1]))
    ]
    listed = "".join(f'    "{name}",\n' for name in detr_ft.__all__)
    return (
        '"""The public names for type checkers; `__init__.py` loads them when they are used."""\n\n'
        + "\n".join(lines)
        + f"\n\n__version__: str\n\n__all__ = [\n{listed}]\n"
    )


def test_the_stub_is_that_of_the_dictionary() -> None:
    assert stub() == STUB.read_text(encoding="utf-8"), "run: python tests/test_public_api.py"
    assert (ROOT / "detr_ft/py.typed").is_file()


@pytest.mark.parametrize("name", detr_ft.__all__)
def test_every_public_name_is_found(name: str) -> None:
    module, _, original = detr_ft._MODULES[name].partition(":")
    assert getattr(import_module(module), original or name) is getattr(detr_ft, name)


def test_import_loads_no_library() -> None:
    code = f"import sys, detr_ft; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_verb_has_a_workflow_and_a_public_function() -> None:
    for verb, name in functions_of_verbs().items():
        assert name in detr_ft.__all__, verb
        assert getattr(detr_ft, name).__module__ == f"detr_ft.workflows.{verb}"


def test_a_function_has_the_options_of_its_verb() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        verb = command.callback.__name__
        if verb in APPS:
            continue
        known = inspect.signature(getattr(detr_ft, FUNCTIONS.get(verb, verb))).parameters
        options = set(inspect.signature(command.callback).parameters) - OUTPUT_OPTIONS
        assert {option for option in options if (verb, option) not in OTHER_FUNCTIONS} <= set(known), verb


def test_options_of_train_are_the_settings() -> None:
    hints = typing.get_type_hints(TrainOptions)
    assert list(hints) == list(TrainSettings.model_fields)
    for name, field in TrainSettings.model_fields.items():
        if name not in ("output_dir", "lr_drop_epochs"):  # also a path; with bounds
            assert hints[name] == field.annotation, name


def test_the_names_of_the_data_package_are_those_of_its_stub() -> None:
    stub = ast.parse((Path(data.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {
        alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(imported) == set(data.__all__) <= set(dir(data))
    for name, module in imported.items():
        assert getattr(data, name) is getattr(import_module(str(module)), name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = data.nothing


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    LIST.write_text(text(), encoding="utf-8")
