"""Flags of annotation files: yes, no, unstated and invalid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.parsing import parse_flag
from detr_ft.errors import InputError


@pytest.mark.parametrize("stated", [True, 1, 1.0, "1", "1.0", "true", " Yes ", "T"])
def test_yes(stated: object) -> None:
    problems: list[str] = []
    assert parse_flag(stated, "iscrowd", "a", problems)
    assert problems == []


@pytest.mark.parametrize(
    "stated",
    [
        None,
        False,
        0,
        0.0,
        "0",
        "0.0",
        "False",
        "no",
        "N",
        "",
        -1,
        "-1",
        "-1.0",
        float("nan"),
        "None",
        "NULL",
        "Unknown",
        "Unspecified",
    ],
)
def test_no_and_unstated(stated: object) -> None:
    problems: list[str] = []
    assert not parse_flag(stated, "iscrowd", "a", problems)
    assert problems == []


@pytest.mark.parametrize("stated", ["maybe", 2, 0.5, "00", [1], {}, float("inf")])
def test_neither_is_a_problem(stated: object) -> None:
    problems: list[str] = []
    assert not parse_flag(stated, "iscrowd", "row 7", problems)
    (problem,) = problems
    assert problem.startswith("row 7: iscrowd must be yes (1, true) or no (0, false), got ")


def row(*flags: Any) -> dict[str, object]:
    objects = {"bbox": [[1.0, 2.0, 3.0, 4.0]] * len(flags), "category": ["a"] * len(flags), "difficult": list(flags)}
    return {"file_name": "a.png", "objects": objects}


def test_columns_of_text_in_parquet(tmp_path: Path, write_image: Any) -> None:
    write_image(tmp_path / "a.png")
    Dataset.from_list([row("False", "0", "no", "true")]).to_parquet(tmp_path / "train.parquet")
    assert load_data(f"parquet:{tmp_path}")["train"][0]["objects"]["difficult"] == [False, False, False, True]
    Dataset.from_list([row("0"), row("0", "hard")]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"split train, row 1: object 1: difficult must be yes .* got 'hard'"):
        load_data(f"parquet:{tmp_path}")
