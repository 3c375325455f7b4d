"""Objects from plain descriptions, `{use: NAME, ...}`, and back."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from detr_ft.utils.keys import closest
from detr_ft.utils.user_code import describe_error, raise_if_interrupt

logger = logging.getLogger(__name__)

_PACKAGE = __name__.partition(".")[0]
SCRIPT = "__main__"  # the module of a script or notebook
# The files of classes that were loaded, as their descriptions name them, by the name of their module.
_FILES_OF_MODULES: dict[str, str] = {}
KeyPath = tuple[str | int, ...]  # keys and indices that lead to a value of a description


class ConfigureError(ValueError):
    """The mistakes in a description, as pairs of the path of keys and a message."""

    def __init__(self, problems: Sequence[tuple[KeyPath, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {message}" for path, message in problems))


def build_object(description: object, built_in: Mapping[str, type], folder: Path | None = None) -> Any:
    """Build the object that `{"use": NAME, ...}` describes. Raises ConfigureError.

    NAME is a class of `built_in`, or with a `folder` also `file.py:Name` relative to it, or `package.module:Name`.
    """
    problems: list[tuple[KeyPath, str]] = []
    built = ObjectBuilder(built_in, folder, problems)(description, ())
    if not problems and not is_dataclass(built):
        problems.append(((), "needs `use:`, the name of a class"))
    if problems:
        raise ConfigureError(problems)
    return built


def code_files(description: object, folder: Path = Path()) -> list[Path]:
    """The Python files that building a description would run: those of each `file.py:Name` in it."""
    return [folder / name for name in code_names(description)]


def code_names(description: object) -> list[str]:
    """The names of the Python files that building a description would run, each once."""
    return list(dict.fromkeys(_source_of(use) for use in _uses(description) if _is_file(use)))


def module_names(description: object) -> list[str]:
    """The names of the modules that building a description would import, each once."""
    return list(dict.fromkeys(_source_of(use) for use in _uses(description) if _is_code(use) and not _is_file(use)))


def script_classes(description: object) -> list[str]:
    """The names of the classes of a script or notebook in a description, each once."""
    return list(dict.fromkeys(use.rpartition(":")[2] for use in _uses(description) if _source_of(use) == SCRIPT))


def rename_code(description: Any, names: Mapping[str, str]) -> Any:
    """The description with other names of its Python files."""
    if isinstance(description, list):
        return [rename_code(value, names) for value in description]
    if not isinstance(description, Mapping):
        return description
    renamed = {key: rename_code(value, names) for key, value in description.items()}
    file, _, attribute = str(renamed.get("use", "")).rpartition(":")
    if file in names:
        renamed["use"] = f"{names[file]}:{attribute}"
    return renamed


@dataclass(frozen=True)
class ObjectBuilder:
    """Builds values from descriptions and adds mistakes, with their path of keys, to `problems`.

    Files are relative to `folder`; without one no code runs. Each file and module is logged before it runs.
    """

    built_in: Mapping[str, type]
    folder: Path | None
    problems: list[tuple[KeyPath, str]]
    announced: set[str] = field(default_factory=set)

    def __call__(self, node: Any, path: KeyPath) -> Any:
        if isinstance(node, list):
            return [self(value, (*path, index)) for index, value in enumerate(node)]
        if not isinstance(node, Mapping):
            return node
        problems_before = len(self.problems)
        values = {str(key): self(value, (*path, str(key))) for key, value in node.items() if key != "use"}
        kind = self._class_of(node, path)
        if kind is None:
            return None
        parameters = list(inspect.signature(kind).parameters)
        for key in values:
            if key not in parameters:
                match = closest(key, parameters)
                hint = f"did you mean {match}?" if match else f"it has {', '.join(parameters) or 'none'}"
                self.problems.append(((*path, key), f"{kind.__name__} has no parameter {key!r}; {hint}"))
        if len(self.problems) > problems_before:
            return None
        try:
            return kind(**{key: _with_tuple(kind, key, value) for key, value in values.items()})
        except (TypeError, ValueError) as error:
            self.problems.append((path, str(error)))
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            raise_if_interrupt(error)
            self.problems.append((path, f"{kind.__name__}: {describe_error(error)}"))
        return None

    def _class_of(self, node: Mapping[str, Any], path: KeyPath) -> Any:
        if "use" not in node:
            self.problems.append((path, "needs `use:`, the name of a class"))
            return None
        use = str(node["use"])
        try:
            if self.folder is None and _is_code(use):
                raise LookupError(f"{use} is code, which does not run without the folder of its recipe")
            self._announce(use)
            kind: object = _import_class(use, self.folder or Path(), self.built_in)
        except (LookupError, OSError, SyntaxError, ImportError) as error:
            self.problems.append(((*path, "use"), str(error)))
            return None
        if not (isinstance(kind, type) and is_dataclass(kind)):
            remedy = (
                "Decorate it with @dataclass(frozen=True), which makes its parameters part of recipes and checkpoints"
            )
            self.problems.append(((*path, "use"), f"{node['use']} is no dataclass. {remedy}"))
            return None
        return kind

    def _announce(self, use: str) -> None:
        """Log the code of a class before it runs."""
        source = _source_of(use)
        file = _is_file(use) and self.folder is not None and self.folder / source
        if source and source not in self.announced and (not file or file.is_file()):
            logger.info("runs code: %s", file or f"module {source}")
            self.announced.add(source)


def as_description(value: Any) -> Any:
    """The description from which dataclasses can be built again. Raises TypeError for other objects."""
    if isinstance(value, (list, tuple)):
        return [as_description(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"use": _name_of(type(value))} | {
            field.name: as_description(getattr(value, field.name)) for field in fields(value) if field.init
        }
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} cannot be written into a recipe or checkpoint. Use dataclasses of numbers and strings")


def _with_tuple(kind: Any, key: str, value: Any) -> Any:
    """A list as a tuple, because YAML has lists only, unless the parameter is a list by default."""
    if not isinstance(value, list):
        return value
    factories = [field.default_factory for field in fields(kind) if field.name == key]
    return value if list in factories else tuple(value)


def _import_class(name: str, folder: Path, built_in: Mapping[str, type]) -> Any:
    if ":" not in name:
        if name in built_in:
            return built_in[name]
        if name.endswith(".py"):
            raise LookupError(f"{name} is a file. Name a class in it, as in {name}:MyLoss")
        match = closest(name, built_in)
        known = f"there are {', '.join(sorted(built_in))}, file.py:Name and package.module:Name"
        raise LookupError(f"there is no {name!r}; " + (f"did you mean {match}?" if match else known))
    source, _, attribute = name.rpartition(":")
    module = _load_file(folder / source, source) if _is_file(name) else _load_module(source)
    if source == SCRIPT and not hasattr(module, attribute):
        raise LookupError(
            f"{attribute} was defined in a script or notebook. Move it to a file beside the recipe and write file.py:{attribute}"
        )
    if not hasattr(module, attribute):
        classes = [
            key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        raise LookupError(f"{source} defines no {attribute!r}. It defines {', '.join(classes) or 'no class'}")
    return getattr(module, attribute)


def _uses(description: object) -> Iterator[str]:
    """Yield the name of each class in a description."""
    if isinstance(description, Mapping):
        yield str(description.get("use", ""))
        for value in description.values():
            yield from _uses(value)
    elif isinstance(description, Sequence) and not isinstance(description, str):
        for value in description:
            yield from _uses(value)


def _source_of(use: str) -> str:
    """Return the file or module of a class, empty for a class of this package."""
    return use.rpartition(":")[0]


def _is_code(use: str) -> bool:
    return ":" in use


def _is_file(use: str) -> bool:
    return _source_of(use).endswith(".py")


class _SourceLoader(SourceFileLoader):
    """Compiles the file itself: bytecode in a `__pycache__` beside it may be of other code."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        raise LookupError(f"{path}: there is no such file. Paths are relative to the recipe")
    # With the contents: a file that was changed since it was loaded is another module.
    digest = hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + path.read_bytes()).hexdigest()[:12]
    name = f"detr_ft_terms_{path.stem}_{digest}"
    _FILES_OF_MODULES[name] = source
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    assert spec is not None, "a .py has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module by its name
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # any exception of a user's file is reported as a mistake of that file
        sys.modules.pop(name, None)
        raise_if_interrupt(error)
        raise LookupError(f"{path}: {describe_error(error)}") from error
    return module


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise
    except BaseException as error:
        raise_if_interrupt(error)
        raise LookupError(f"{name}: {describe_error(error)}") from error


def _name_of(kind: type) -> str:
    if kind.__module__.startswith(f"{_PACKAGE}."):
        return kind.__name__
    module = SCRIPT if kind.__module__ == "__mp_main__" else kind.__module__  # the script in a process that it started
    return f"{_FILES_OF_MODULES.get(module, module)}:{kind.__qualname__}"
