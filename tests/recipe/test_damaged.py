"""Damaged recipes and overrides are refused in words, in bounded time and memory."""

from __future__ import annotations

import difflib
import random
from pathlib import Path

import pytest
import yaml
from data.test_fuzz import spoiled_text, spoiled_value

from detr_ft.errors import InputError
from detr_ft.recipe.load import build_file
from detr_ft.recipe.values import check_keys
from detr_ft.utils.yaml import read_located

ROOT = Path(__file__).parents[2]
GOOD = 'model: {checkpoint: embedded:small}\ndata: {source: "generated:shapes"}\ntrain: {output_dir: run}\n'
SPOILED = 60


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(GOOD)
    return file


def problems_of(recipe: Path, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        check_keys(recipe, overrides)
    return caught.value.problems


def test_many_unknown_keys_are_compared_with_few_known_ones(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    original = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, "get_close_matches", lambda name, *others: [compared.append(name), original(name, *others)][1]
    )
    recipe.write_text(GOOD + "".join(f"key_{number}: 1\n" for number in range(3000)))
    problems = problems_of(recipe)
    assert len(problems) == 3000
    assert problems[0].endswith(
        "recipe.yaml:4: key_0: unknown key; there are model, data, criterion, train, optim, hub"
    )
    assert problems[-1].endswith("recipe.yaml:3003: key_2999: unknown key")
    assert len(compared) < 500


def test_a_long_name_is_compared_with_none(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difflib, "get_close_matches", lambda *_: pytest.fail("compared"))
    name = "k" * 900
    recipe.write_text(GOOD.replace("{output_dir", f"{{{name}: 1, output_dir"))
    assert "unknown key" in problems_of(recipe)[0]
    recipe.write_text(f"{GOOD}criterion: {{matcher: {{use: {name}}}, losses: [{{use: BoxL1Loss, {name}: 1}}]}}\n")
    with pytest.raises(InputError) as caught:
        build_file(recipe)
    assert len(caught.value.problems) == 2


def test_duplicate_keys_are_found_at_every_depth(recipe: Path) -> None:
    recipe.write_text(GOOD + "other:\n  a: 1\n  b: [{c: 1, c: 2}]\n  a: 2\n" + "key: 1\n" * 3)
    assert [problem.rpartition("recipe.yaml")[2] for problem in problems_of(recipe)] == [
        f":{line}: {key} occurs twice. Remove one of them"
        for line, key in ((6, "c"), (7, "a"), (9, "key"), (10, "key"))
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_text(recipe: Path, encoding: str) -> None:
    recipe.write_text(GOOD.rstrip(), encoding=encoding)
    assert check_keys(recipe) is not None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must be a mapping"),
        (b"a: \0\n", "not valid YAML"),
        (b"\xff\xfea", "can't be read"),
        (bytes(range(256)), "can't be read"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (b"#" * (5 << 20), "is larger than 4 MiB"),
        (b"a: " + b"9" * 6000, "not valid YAML"),
        (b"? [a]\n: 1\n", "unhashable key"),
        (b"\x1b[31m: 1\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_reported(recipe: Path, content: bytes, words: str) -> None:
    recipe.write_bytes(content)
    (problem,) = problems_of(recipe)
    assert words in problem
    with pytest.raises(InputError):
        read_located(recipe)


def test_an_endless_file_is_reported() -> None:
    (problem,) = problems_of(Path("/dev/zero"))
    assert problem.startswith("/dev/zero: ")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a" * 100_000 + "=1", "must be written section.key=value"),
        ("x." * 50_000 + "y=1", "has 50000 sections"),
        ("train." + "x" * 100_000 + "=1", "unknown key"),
        ("train.learning_rate=" + "[" * 100_000, "is not a YAML value"),
        ("train.learning_rate=\x1b[31m", "is not a YAML value"),
        ("train.learning_rate=\0", "is not a YAML value"),
        ("train.learning_rate=\udcff", "is not a YAML value"),
        ("=1", "must be written section.key=value"),
        ("train.seed=1e999", "seed"),
    ],
)
def test_damaged_overrides_are_reported(recipe: Path, override: str, words: str) -> None:
    (problem,) = problems_of(recipe, override)
    assert words in problem


def test_the_last_override_of_a_section_is_named(recipe: Path) -> None:
    problems = problems_of(recipe, "new.section={a: 1}", "new.section.b=1", "train.seed=x", "train.seed.x=1")
    assert problems[0] == "override train.seed.x=1: train.seed has no keys"
    assert [problem.partition(":")[0] for problem in problems[1:]] == [
        "override train.seed=x",
        "override new.section={a",
    ]


def test_spoiled_recipes_are_read_or_refused(recipe: Path) -> None:
    texts = [file.read_text() for file in sorted((ROOT / "recipes").rglob("*.yaml"))]
    refused = 0
    for seed in range(SPOILED):
        rng = random.Random(f"recipe {seed}")
        text = rng.choice(texts)
        spoiled = yaml.safe_dump(spoiled_value(yaml.safe_load(text), rng)).encode()
        recipe.write_bytes(spoiled_text(text, rng) if seed % 2 else spoiled)
        for read in (check_keys, build_file):
            try:
                read(recipe)
            except InputError as error:
                refused += bool(all(error.problems))
            except Exception as error:
                error.add_note(f"seed {seed}: {recipe.read_bytes()[:2000]!r}")
                raise
    assert refused >= SPOILED
