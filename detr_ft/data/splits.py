"""Which images are trained on and which are held out."""

from __future__ import annotations

from datasets import Dataset, DatasetDict

from detr_ft.errors import UserError


def train_and_validation(data: DatasetDict, validation_fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """The train and validation splits; where there is no validation, that fraction of train is held out, by the seed.

    Raises UserError where there is nothing to train on or too little to hold out.
    """
    if "train" not in data:
        raise UserError(f"the data has no train split, only {', '.join(data)}")
    train = data["train"]
    if "validation" in data:
        return train, data["validation"]
    held_out = round(len(train) * validation_fraction)
    if not 0 < held_out < len(train):
        raise UserError(
            f"the data has no validation split, and {validation_fraction:g} of {len(train)} train images is {held_out}: "
            "bring more images, or another data.validation_fraction"
        )
    parts = train.train_test_split(test_size=held_out, seed=seed)
    return parts["train"], parts["test"]
