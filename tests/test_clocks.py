"""Limits of wall-clock time stand in tests marked `alone` only: other tests run beside each other, on busy machines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
CLOCKS = {
    f"time.{name}" for name in ("time", "monotonic", "perf_counter", "monotonic_ns", "perf_counter_ns", "time_ns")
}
FILES = [file for file in sorted(TESTS.rglob("*.py")) if file.parent.name != "benchmarks"]


def short(file: Path) -> str:
    return file.relative_to(TESTS).as_posix()


def reads_clock(node: ast.AST, names: set[str]) -> bool:
    """Return True if an expression calls a clock or uses one of the names."""
    return any(
        (isinstance(part, ast.Call) and ast.unparse(part.func) in CLOCKS)
        or (isinstance(part, ast.Name) and part.id in names)
        for part in ast.walk(node)
    )


def measures(node: ast.AST, clocks: set[str], spans: set[str]) -> bool:
    """Return True if an expression uses a span, or subtracts the times of a clock."""
    return any(
        (isinstance(part, ast.Name) and part.id in spans)
        or (isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) and reads_clock(part, clocks))
        for part in ast.walk(node)
    )


def spans_of(function: ast.FunctionDef, returning: set[str]) -> set[str]:
    """Names in a function that are spans of time, with `returning`."""
    clocks: set[str] = set()
    spans = set(returning)
    for node in sorted(ast.walk(function), key=lambda node: getattr(node, "lineno", 0)):
        if not isinstance(node, ast.Assign):
            continue
        names = {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        if measures(node.value, clocks, spans):
            spans |= names
        elif isinstance(node.value, ast.Call) and reads_clock(node.value, set()):
            clocks |= names
    return spans


def timed_asserts(tree: ast.Module) -> list[str]:
    """Asserts on measured spans of time in functions without the mark `alone`, with their lines.

    Spans are followed through names and through the functions of the module that return them. A deadline of a loop that
    waits is no limit of a test.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    if not reads_clock(tree, set()):
        return []
    returning: set[str] = set()  # functions that return a span
    spans: dict[ast.FunctionDef, set[str]] = {}
    known = -1
    while known < len(returning):
        known = len(returning)
        spans = {function: spans_of(function, returning) for function in functions}
        returning |= {
            function.name
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and node.value and measures(node.value, set(), spans[function])
        }
    return [
        f"{function.name}, line {node.lineno}"
        for function in functions
        if "pytest.mark.alone" not in map(ast.unparse, function.decorator_list)
        for node in ast.walk(function)
        if isinstance(node, ast.Assert) and measures(node.test, set(), spans[function])
    ]


@pytest.mark.parametrize("file", FILES, ids=short)
def test_only_tests_that_run_alone_limit_the_time(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert timed_asserts(tree) == [], "mark the test alone, or count calls or CPU time (time.process_time)"


TIMED = """
def test_a():
    start = time.monotonic()
    work()
    assert time.monotonic() - start < 5
def test_b():
    begun = time.perf_counter()
    took = 1000 * (time.perf_counter() - begun)
    assert took < 5
def seconds(call):
    begun = time.perf_counter()
    return time.perf_counter() - begun
def test_c():
    assert seconds(work) < 5
"""
UNTIMED = """
@pytest.mark.alone
def test_a():
    start = time.monotonic()
    assert time.monotonic() - start < 5
def test_b():
    start = time.process_time()
    assert time.process_time() - start < 5
def wait():
    deadline = time.monotonic() + 90
    while not done():
        assert time.monotonic() < deadline
"""


def test_a_timed_assert_is_reported() -> None:
    names = [text.partition(",")[0] for text in timed_asserts(ast.parse(TIMED))]
    assert names == ["test_a", "test_b", "test_c"]
    assert timed_asserts(ast.parse(UNTIMED)) == []
