"""Plain technical English: words and names that docstrings, comments, messages, help and pages do not use.

In tests: docstrings, comments and names of functions. Their messages and variables are free.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted([*(ROOT / "detr_ft").rglob("*.py"), *(ROOT / "demo").glob("*.py"), *(ROOT / "recipes").rglob("*.py")])
# Not reworded yet; this list only shrinks. Fixtures stay as an earlier version wrote them.
UNCHECKED_TESTS = ("tests/fixtures/",)
TESTS = sorted(
    file for file in (ROOT / "tests").rglob("*.py") if not file.relative_to(ROOT).as_posix().startswith(UNCHECKED_TESTS)
)
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        ROOT / "Makefile",
        ROOT / "tests/benchmarks/README.md",
        *(file for kind in ("md", "yaml", "sh") for file in (ROOT / "recipes").rglob(f"*.{kind}")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "detr_ft").rglob("*.jinja"),
    ]
)

# Verbs of speech for the flow of data, participles for results, personification.
BANNED_WORDS = re.compile(
    r"\b(told|tell|tells|telling|said|say|says|held(?![- ]out)|kept|marks|sound|whoever|nobody|somebody|anybody|mend|mends|mended|mending|believed|believes"
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
    "marks",
    "looks",
    "figures",
}
FUNCTIONS = {"say", "tell", "ask", "answer"}
# Keys of JSON files and of `doctor --json`.
EXCEPTIONS = {("detr_ft/evaluation/metrics.py", "figures"), ("detr_ft/data/doctor/diagnosis.py", "figures")}
# Methods whose base class describes them.
OVERRIDES = {"of_pair", "per_query", "plan", "forward"}
MAX_FIRST_LINE = 100
MAX_DOCSTRING_LINE = 130


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
            yield node.lineno, f"{node.name}()"
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in inside:
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def faults_of_code(file: Path) -> list[str]:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    where = short(file)
    faults = [f"{where}:{line}: {word[0]!r}" for line, text in prose(source) for word in BANNED_WORDS.finditer(text)]
    faults += [f"{where}:{fault}" for fault in faults_of_docstrings(tree, MAX_FIRST_LINE)]
    faults += [
        f"{where}:{line}: the name {name}"
        for line, name in assigned_names(tree)
        if is_banned(name) and (where, name) not in EXCEPTIONS
    ]
    if is_banned(file.stem):
        faults.append(f"{where}: the name of the module")
    return faults


def faults_of_docstrings(tree: ast.Module, max_first_line: int) -> Iterator[str]:
    for line, text in docstrings(tree):
        first, *others = text.splitlines()
        if first.split()[0].rstrip(",").lower() in FIRST_WORDS:
            yield f"{line}: docstring begins with {first.split()[0]!r}"
        if len(first) > max_first_line:
            yield f"{line}: first line of a docstring has {len(first)} characters"
        for other in others:
            if len(other) > MAX_DOCSTRING_LINE:
                yield f"{line}: line of a docstring has {len(other)} characters"


def is_banned(name: str) -> bool:
    plain = name.strip("_()").lower()
    return plain == "one" or plain in PARTICIPLES or (name.endswith("()") and plain in FUNCTIONS)


def faults_of_test(file: Path) -> list[str]:
    """Banned words in docstrings, comments and names, and long or unclear docstrings."""
    source = file.read_text(encoding="utf-8")
    tree, where = ast.parse(source), short(file)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    texts += [(line, text) for line, text in docstrings(tree)]
    texts += [(line, name.replace("_", " ")) for line, name in assigned_names(tree) if name.endswith("()")]
    texts.append((1, file.stem.replace("_", " ")))
    faults = [f"{where}:{line}: {word[0]!r}" for line, text in texts for word in BANNED_WORDS.finditer(text)]
    faults += [
        f"{where}:{line}: the name {name}"
        for line, name in assigned_names(tree)
        if BANNED_WORDS.fullmatch(name) or (name.startswith("test_") and name.split("_")[1] in FIRST_WORDS)
    ]
    return faults + [f"{where}:{fault}" for fault in faults_of_docstrings(tree, MAX_DOCSTRING_LINE)]


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


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and members without a docstring."""
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    nodes += [member for node in nodes if not node.name.startswith("_") for member in members_of(node)]
    return [
        node.name
        for node in nodes
        if not node.name.startswith("_") and node.name not in OVERRIDES and not ast.get_docstring(node)
        if "overload" not in map(ast.unparse, node.decorator_list)
    ]


def members_of(node: ast.ClassDef | ast.FunctionDef) -> list[ast.FunctionDef]:
    return [member for member in node.body if isinstance(node, ast.ClassDef) and isinstance(member, ast.FunctionDef)]


@pytest.mark.parametrize("file", [file for file in CODE if not file.is_relative_to(ROOT / "recipes")], ids=short)
def test_public_names_have_a_docstring(file: Path) -> None:
    assert undocumented(ast.parse(file.read_text(encoding="utf-8"))) == []


def test_a_missing_docstring_is_reported() -> None:
    code = "def a(): pass\ndef _b(): pass\nclass C:\n    'Text.'\n    def d(self): pass\n    def forward(self): pass"
    assert undocumented(ast.parse(code)) == ["a", "d"]


@pytest.mark.parametrize("file", TESTS, ids=short)
def test_tests_use_the_words_of_the_field(file: Path) -> None:
    assert file == Path(__file__) or faults_of_test(file) == []


@pytest.mark.parametrize("file", PAGES, ids=short)
def test_pages_use_the_words_of_the_field(file: Path) -> None:
    assert faults_of_page(file) == []


def test_banned_words_and_names_are_reported() -> None:
    source = (
        '"""What a box is told."""\n\n\ndef held(one: int) -> int:  # nobody asked, kept and held-out\n    return one\n'
    )
    tree = ast.parse(source)
    assert [name for _, name in assigned_names(tree) if is_banned(name)] == ["held()", "one"]
    words = [word[0] for _, text in prose(source) for word in BANNED_WORDS.finditer(text)]
    assert words == ["told", "nobody", "asked", "kept"]
    assert len(list(faults_of_docstrings(tree, MAX_FIRST_LINE))) == 1
    names = ast.parse("def say(answer): pass\nself.figures = looks = answers = 1")
    assert sorted(name for _, name in assigned_names(names) if is_banned(name)) == ["figures", "looks", "say()"]


if __name__ == "__main__":
    for path in CODE:
        print(*faults_of_code(path), sep="\n")
    for path in TESTS:
        print(*faults_of_test(path), sep="\n")
    for path in PAGES:
        print(*faults_of_page(path), sep="\n")
