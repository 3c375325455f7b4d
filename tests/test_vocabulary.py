"""Plain technical English: words and names that docstrings, comments, messages, help and pages don't use."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted([*(ROOT / "detr_ft").rglob("*.py"), *(ROOT / "demo").glob("*.py")])
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "tests/benchmarks/README.md",
        *(ROOT / "recipes").rglob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "detr_ft").rglob("*.jinja"),
    ]
)

# Verbs of speech for the flow of data, participles for results, personification.
BANNED_WORDS = re.compile(
    r"\b(told|tell|tells|telling|said|whoever|nobody|somebody|anybody|mend|mends|mended|mending|believed|believes"
    r"|asked|asks|looked at|looks at|goes on|went on|is taken for|may be trusted|at hand)\b",
    re.IGNORECASE,
)
FIRST_WORDS = {"what", "how", "which", "where", "whether", "whoever", "who", "when", "why", "of", "from"}
PARTICIPLES = {
    "held",
    "kept",
    "told",
    "found",
    "taken",
    "said",
    "asked",
    "mended",
    "believed",
    "sound",
    "seen",
}
MAX_FIRST_LINE = 100


def short(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Comments and strings of a Python file, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line
        elif token.type == getattr(tokenize, "FSTRING_MIDDLE", -1) and " " in token.string:
            yield token.start[0], token.string


def assigned_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Names of functions, classes, parameters and variables; those of comprehensions are left out."""
    inside = {
        id(name) for node in ast.walk(tree) if isinstance(node, ast.comprehension) for name in ast.walk(node.target)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in inside:
            yield node.lineno, node.id


def faults_of_code(file: Path) -> list[str]:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    where = short(file)
    faults = [f"{where}:{line}: {word[0]!r}" for line, text in prose(source) for word in BANNED_WORDS.finditer(text)]
    for line, text in docstrings(tree):
        first = text.splitlines()[0]
        if first.split()[0].rstrip(",").lower() in FIRST_WORDS:
            faults.append(f"{where}:{line}: docstring begins with {first.split()[0]!r}")
        if len(first) > MAX_FIRST_LINE:
            faults.append(f"{where}:{line}: first line of a docstring has {len(first)} characters")
    faults += [f"{where}:{line}: the name {name}" for line, name in assigned_names(tree) if is_banned(name)]
    if is_banned(file.stem):
        faults.append(f"{where}: the name of the module")
    return faults


def is_banned(name: str) -> bool:
    return name == "one" or name.strip("_").lower() in PARTICIPLES


def faults_of_page(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [
        f"{short(file)}:{number}: {word[0]!r}"
        for number, line in enumerate(lines, 1)
        for word in BANNED_WORDS.finditer(line)
    ]


@pytest.mark.parametrize("file", CODE, ids=short)
def test_code_uses_the_words_of_the_field(file: Path) -> None:
    assert faults_of_code(file) == []


@pytest.mark.parametrize("file", PAGES, ids=short)
def test_pages_use_the_words_of_the_field(file: Path) -> None:
    assert faults_of_page(file) == []


def test_faults_are_found(tmp_path: Path) -> None:
    file = ROOT / "detr_ft/boxes.py"
    source = '"""What a box is told."""\n\n\ndef held(one: int) -> int:  # nobody asked\n    return one\n'
    (tmp_path / "found.py").write_text(source)
    assert file.is_file()
    tree = ast.parse(source)
    assert [name for _, name in assigned_names(tree) if is_banned(name)] == ["held", "one"]
    assert [word[0] for _, text in prose(source) for word in BANNED_WORDS.finditer(text)] == ["told", "nobody", "asked"]


if __name__ == "__main__":
    for path in CODE:
        print(*faults_of_code(path), sep="\n")
    for path in PAGES:
        print(*faults_of_page(path), sep="\n")
