"""The source of classes of a script or notebook as a module of its own."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterator, Sequence

_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def standalone_source(names: Sequence[str]) -> str:
    """Return a module with these classes of `__main__`, and the definitions and imports that they use.

    Other statements of the script, which would train again, are left out. Raises LookupError with the reason if the source is
    not available, or uses a name that no import, class, function or constant of the script defines.
    """
    source = _script()
    statements = [node for node in ast.parse(source).body if isinstance(node, _DEFINITIONS)]
    defined = {name: node for node in statements for name in _names_of(node)}
    needed: dict[ast.stmt, None] = {}
    for name in names:
        if not isinstance(defined.get(name), ast.ClassDef):
            raise LookupError(f"{name} is not a class at the top level of the script")
    pending = list(names)
    while pending:
        name = pending.pop()
        node = defined.get(name)
        if node is None:
            if hasattr(builtins, name):
                continue
            raise LookupError(f"the script defines {name!r} in no import, class, function or constant at its top level")
        if node not in needed:
            needed[node] = None
            pending += _used(node)
    future = [node for node in statements if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    parts = [_with_decorators(source, node) for node in statements if node in needed or node in future]
    return "\n\n\n".join(parts) + "\n"


def _script() -> str:
    """Return the source of the program or notebook. Raises LookupError if it is in no file and no cell."""
    main = sys.modules["__main__"]
    if not hasattr(main, "__file__") and hasattr(main, "In"):  # IPython and Jupyter
        return "\n".join(cell for cell in main.In if _is_python(cell))
    try:
        return inspect.getsource(main)
    except (OSError, TypeError) as error:
        raise LookupError("the source of the program is in no file") from error


def _is_python(cell: str) -> bool:
    """Return False for a cell with an error or with commands of the notebook itself."""
    try:
        ast.parse(cell)
    except SyntaxError:
        return False
    return True


def _names_of(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Assign):
        names = (name for target in node.targets for name in ast.walk(target))
        yield from (name.id for name in names if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _used(node: ast.stmt) -> list[str]:
    """Return the names that a statement reads and does not define itself."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return []
    names = [child for child in ast.walk(node) if isinstance(child, ast.Name)]
    local = {child.id for child in names if isinstance(child.ctx, ast.Store)}
    local |= {
        argument.arg for child in ast.walk(node) if isinstance(child, ast.arguments) for argument in _arguments(child)
    }
    local |= {child.name for child in ast.walk(node) if isinstance(child, (ast.FunctionDef, ast.ClassDef))}
    return sorted({child.id for child in names if isinstance(child.ctx, ast.Load)} - local)


def _arguments(node: ast.arguments) -> list[ast.arg]:
    return [*node.posonlyargs, *node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg))]


def _with_decorators(source: str, node: ast.stmt) -> str:
    """Return the source of a statement from its first decorator on."""
    decorators = node.decorator_list if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])
