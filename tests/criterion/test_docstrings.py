"""The examples in the docstrings run, and say what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import detr_ft.boxes
import detr_ft.criterion
from detr_ft.criterion import detr_criterion

MODULES = [module.name for module in pkgutil.iter_modules(detr_ft.criterion.__path__, "detr_ft.criterion.")]
WITH_EXAMPLES = {"explain", "matchers", "set_criterion", "verify"}


@pytest.mark.parametrize("name", ["detr_ft.boxes", *MODULES])
def test_examples(name: str) -> None:
    result = doctest.testmod(
        importlib.import_module(name), extraglobs={"torch": torch, "detr_criterion": detr_criterion}
    )
    assert result.failed == 0
    if name.rpartition(".")[2] in WITH_EXAMPLES:
        assert result.attempted > 0
