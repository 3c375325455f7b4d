"""Docstrings of terms follow one template, cite their papers, and have examples that run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys

import pytest
import torch

import detr_ft.boxes
import detr_ft.criterion
from detr_ft.criterion import detr_criterion
from detr_ft.criterion.base import ANY_ACTIVATION
from detr_ft.criterion.serialization import FORMS, TERMS

MODULES = [module.name for module in pkgutil.walk_packages(detr_ft.criterion.__path__, "detr_ft.criterion.")]
NAMES = {"torch": torch, "detr_criterion": detr_criterion}


@pytest.mark.parametrize("name", ["detr_ft.boxes", *MODULES])
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), extraglobs=NAMES).failed == 0


@pytest.mark.parametrize("kind", TERMS.values(), ids=TERMS)
def test_terms_have_an_example_relations_and_a_choice(kind: type) -> None:
    text = kind.__doc__ or ""
    assert doctest.DocTestFinder(recurse=False).find(kind, globs=NAMES)[0].examples
    assert "Relations: " in text
    assert "When to choose: " in text
    first_line = text.partition("\n")[0]
    assert len(first_line) < 100, first_line


@pytest.mark.parametrize("kind", TERMS.values(), ids=TERMS)
def test_docstrings_name_the_papers_of_terms(kind: type) -> None:
    text = " ".join((kind.__doc__ or "").split())
    papers = [paper for paper in kind.paper.split("; ") if paper]  # type: ignore[attr-defined]
    assert bool(papers) == ("Paper: " in text)
    for paper in papers:
        citation, arxiv = re.fullmatch(r"(.+) \(arXiv:(\d{4}\.\d{4,5})\)", paper).groups()  # type: ignore[union-attr]
        assert citation in text
        assert arxiv


@pytest.mark.parametrize("kind", TERMS.values(), ids=TERMS)
def test_costs_and_losses_state_their_activations(kind: type) -> None:
    if not kind.__name__.endswith(("Matcher", "Schedule")):
        assert set() < kind.activations <= ANY_ACTIVATION  # type: ignore[attr-defined]


def test_forms_support_their_activation_and_are_named_by_it() -> None:
    for plain, forms in FORMS.items():
        assert plain not in TERMS
        for activation, kind in forms.items():
            assert kind.activations == {activation}  # type: ignore[attr-defined]
            assert kind.__name__ == activation.title() + plain


def test_papers_do_not_depend_on_docstrings() -> None:
    code = "from detr_ft.criterion import ClassCost; print(ClassCost.paper)"
    printed = subprocess.run([sys.executable, "-OO", "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.startswith("Carion et al.")
