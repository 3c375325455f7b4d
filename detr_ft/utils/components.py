"""Build objects from plain descriptions, `{use: NAME, ...}`, and describe objects that way."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
# The files of terms that were loaded, by their module's name, as a description names them.
_SOURCES: dict[str, str] = {}
Place = tuple[str | int, ...]


class ConfigureError(ValueError):
    """What is wrong with the description of a criterion: pairs of a place in it and a message."""

    def __init__(self, problems: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, place))}: {message}" for place, message in problems))


def configure_one(description: object, built_in: Mapping[str, type], folder: Path = Path()) -> Any:
    """The object that `{"use": NAME, ...}` describes, of the classes `built_in` or a user's own. Raises ConfigureError."""
    problems: list[tuple[tuple[str | int, ...], str]] = []
    built = _Builder(built_in, folder, problems)(description, ())
    if not problems and not is_dataclass(built):
        problems.append(((), "needs `use:`, the name of a class"))
    if problems:
        raise ConfigureError(problems)
    return built


def code_files(description: object, folder: Path = Path()) -> list[Path]:
    """The Python files that a description would run: one for each `file.py:Name` in it."""
    if isinstance(description, Mapping):
        files = [path for value in description.values() for path in code_files(value, folder)]
        name = str(description.get("use", ""))
        return [folder / name.rpartition(":")[0], *files] if _is_file(name) else files
    if isinstance(description, Sequence) and not isinstance(description, str):
        return list(dict.fromkeys(path for value in description for path in code_files(value, folder)))
    return []


@dataclass(frozen=True)
class _Builder:
    """Makes objects of their descriptions; what is wrong is added to `problems`, with its place."""

    built_in: Mapping[str, type]
    folder: Path
    problems: list[tuple[Place, str]]

    def __call__(self, node: Any, place: Place) -> Any:
        if isinstance(node, list):
            return [self(value, (*place, index)) for index, value in enumerate(node)]
        if not isinstance(node, Mapping):
            return node
        before = len(self.problems)
        values = {str(key): self(value, (*place, str(key))) for key, value in node.items() if key != "use"}
        kind = self._class_of(node, place)
        if kind is None:
            return None
        known = list(inspect.signature(kind).parameters)
        for key in values:
            if key not in known:
                hint = difflib.get_close_matches(key, known, 1)
                meant = f"; did you mean {hint[0]}?" if hint else f"; it has {', '.join(known) or 'no parameters'}"
                self.problems.append(((*place, key), f"{kind.__name__} has no parameter {key!r}{meant}"))
        if len(self.problems) > before:
            return None
        try:
            return kind(**{key: _as_default(kind, key, value) for key, value in values.items()})
        except (TypeError, ValueError) as error:
            self.problems.append((place, str(error)))
            return None

    def _class_of(self, node: Mapping[str, Any], place: Place) -> Any:
        if "use" not in node:
            self.problems.append((place, "needs `use:`, the name of a class"))
            return None
        try:
            kind: object = _find(str(node["use"]), self.folder, self.built_in)
        except (LookupError, OSError, SyntaxError, ImportError) as error:
            self.problems.append(((*place, "use"), str(error)))
            return None
        if not is_dataclass(kind):
            wanted = (
                "decorate it with @dataclass(frozen=True), so that its parameters can stand in recipes and checkpoints"
            )
            self.problems.append(((*place, "use"), f"{node['use']} is no dataclass: {wanted}"))
            return None
        return kind


def _as_default(kind: Any, key: str, value: Any) -> Any:
    """A list as a tuple, which YAML does not tell apart, unless the parameter is a list by default."""
    if not isinstance(value, list):
        return value
    factories = [field.default_factory for field in fields(kind) if field.name == key]
    return value if list in factories else tuple(value)


def _find(name: str, folder: Path, built_in: Mapping[str, type]) -> Any:
    if ":" not in name:
        if name in built_in:
            return built_in[name]
        if name.endswith(".py"):
            raise LookupError(f"{name} is a file: say which class of it, as in {name}:MyLoss")
        hint = difflib.get_close_matches(name, built_in, 1)
        raise LookupError(
            f"there is no {name!r}"
            + (
                f"; did you mean {hint[0]}?"
                if hint
                else f"; there are {', '.join(sorted(built_in))}, file.py:Name and package.module:Name"
            )
        )
    source, _, attribute = name.rpartition(":")
    module = _load_file(folder / source, source) if _is_file(name) else importlib.import_module(source)
    if source == "__main__" and not hasattr(module, attribute):
        raise LookupError(
            f"{attribute} was defined in a script or notebook. Move it to a file beside the recipe and write file.py:{attribute}"
        )
    if not hasattr(module, attribute):
        defined = [
            key for key, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
        ]
        raise LookupError(f"{source} defines no {attribute!r}; it defines {', '.join(defined) or 'no class'}")
    return getattr(module, attribute)


def _is_file(name: str) -> bool:
    return name.rpartition(":")[0].endswith(".py")


def _load_file(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        raise LookupError(f"{path}: there is no such file")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"detr_ft_terms_{path.stem}_{digest}"
    _SOURCES[name] = source
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a .py has a loader"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is told as a fault of the file
        del sys.modules[name]
        raise LookupError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def _describe(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_describe(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {"use": _name_of(type(value))} | {
            field.name: _describe(getattr(value, field.name)) for field in fields(value) if field.init
        }
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{value!r} can't be written into a recipe or checkpoint: terms are dataclasses of numbers and words"
    )


def _name_of(kind: type) -> str:
    if kind.__module__.startswith(f"{_PACKAGE}."):
        return kind.__name__
    return f"{_SOURCES.get(kind.__module__, kind.__module__)}:{kind.__qualname__}"
