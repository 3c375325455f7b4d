"""The help of each verb: an example that parses, and names of values that a person reads."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.main import get_command

from detr_ft.cli.app import app

# Some versions of typer contain click, others import it, so the classes differ.
VERBS: dict[str, Any] = dict(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", VERBS)
def test_the_example_is_a_valid_command(name: str) -> None:
    words = shlex.split((VERBS[name].epilog or "").removeprefix("Example: "))
    assert words[:2] == ["detr-ft", name]
    VERBS[name].make_context(name, words[2:])


@pytest.mark.parametrize("name", VERBS)
def test_values_have_names_that_a_person_reads(name: str) -> None:
    for parameter in VERBS[name].params:
        assert parameter.metavar or getattr(parameter, "is_flag", False), parameter.name
