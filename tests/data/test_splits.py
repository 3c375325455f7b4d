from __future__ import annotations

import pytest
from datasets import DatasetDict

from detr_ft.data.generated import generate
from detr_ft.data.splits import train_and_validation
from detr_ft.errors import UserError


def ids(split: object) -> set[int]:
    return set(split["image_id"])  # type: ignore[index]


def test_a_validation_split_is_taken_as_it_is() -> None:
    data = generate("shapes?train=6&validation=3")
    train, validation = train_and_validation(data, 0.5, 0)
    assert (ids(train), ids(validation)) == (ids(data["train"]), ids(data["validation"]))


def test_otherwise_a_fraction_is_held_out_by_the_seed() -> None:
    data = generate("shapes?train=20&validation=0")
    train, validation = train_and_validation(data, 0.25, 0)
    assert (len(train), len(validation)) == (15, 5)
    assert ids(train) | ids(validation) == ids(data["train"])
    assert ids(validation) == ids(train_and_validation(data, 0.25, 0)[1])
    assert ids(validation) != ids(train_and_validation(data, 0.25, 1)[1])


def test_too_little_data_is_told() -> None:
    with pytest.raises(UserError, match=r"0\.1 of 2 train images is 0"):
        train_and_validation(generate("shapes?train=2&validation=0"), 0.1, 0)
    with pytest.raises(UserError, match="no train split, only test"):
        train_and_validation(DatasetDict({"test": generate("shapes?train=2&validation=0")["train"]}), 0.1, 0)
