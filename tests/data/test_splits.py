from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_ft.data.duplicates import fingerprint
from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.data.splits import partition, stratify, train_and_validation
from detr_ft.errors import InputError


def ids(split: Any) -> set[int]:
    return set(split["image_id"])


def prints(split: Dataset) -> list[bytes]:
    return [fingerprint(open_image(image)) for image in split["image"]]


def divided(split: Dataset, fraction: float, seed: int, fold: tuple[int, int] | None = None) -> tuple[Dataset, Dataset]:
    """Train and validation, from a train split alone."""
    return train_and_validation(split, None, prints(split), fraction, seed, fold)


def test_an_existing_validation_split_is_unchanged() -> None:
    data = generate("shapes?train=6&validation=3")
    train, validation = train_and_validation(data["train"], data["validation"], prints(data["train"]), 0.5, 0)
    assert (ids(train), ids(validation)) == (ids(data["train"]), ids(data["validation"]))


def test_without_a_validation_split_a_fraction_of_train_is_used() -> None:
    data = generate("shapes?train=40&validation=0")["train"]
    train, validation = divided(data, 0.25, 0)
    assert (len(train), len(validation)) == (30, 10)
    assert ids(train) | ids(validation) == ids(data)
    assert ids(validation) == ids(divided(data, 0.25, 0)[1])
    assert ids(validation) != ids(divided(data, 0.25, 1)[1])


def test_folds_hold_out_every_image_once_and_leave_the_validation_split_alone() -> None:
    data = generate("shapes?train=30&validation=4")
    given = data["train"], data["validation"], prints(data["train"])
    folds = [train_and_validation(*given, 0.15, 0, (number, 4)) for number in range(1, 5)]
    assert sorted(image for _, validation in folds for image in ids(validation)) == sorted(ids(data["train"]))
    for train, validation in folds:
        assert ids(train) == ids(data["train"]) - ids(validation)
    with pytest.raises(InputError, match=r"data\.fold: 30 train images .* 31 folds"):
        train_and_validation(*given, 0.15, 0, (1, 31))


def test_every_part_has_its_size_and_its_share_of_every_class() -> None:
    """To the image in size; of each class to two images and a tenth, but for a set in hundreds that no order gets right."""
    off = 0
    for seed in range(400):
        random = np.random.default_rng(seed)
        rows, classes = int(random.integers(30, 200)), int(random.integers(1, 9))
        parts = ((0.8, 0.2), (0.25,) * 4)[seed % 2]
        presence = (random.random((rows, classes)) < random.uniform(0.02, 0.5, classes)).astype(np.int64)
        presence = np.concatenate([presence, presence.sum(1, keepdims=True) == 0], 1).astype(np.int64)
        made = stratify(presence, [[row] for row in range(rows)], parts, seed)
        assert sorted(row for part in made for row in part) == list(range(rows))
        shares = [(presence[part].sum(0), share * presence.sum(0)) for part, share in zip(made, parts, strict=True)]
        assert all(abs(len(part) - share * rows) <= 1 for part, share in zip(made, parts, strict=True))
        off += any((np.abs(has - due) > 2 + 0.1 * presence.sum(0)).any() for has, due in shares)
    assert off <= 4


def test_a_rare_class_is_on_both_sides() -> None:
    """Three of 200 images hold it: at random the smaller side would go without in half of the cases."""
    presence = np.zeros((200, 2), dtype=np.int64)
    presence[:, 0], presence[[3, 70, 150], 1] = 1, 1
    for seed in range(30):
        stay, out = stratify(presence, [[row] for row in range(200)], (0.8, 0.2), seed)
        assert [presence[part, 1].sum() for part in (stay, out)] == [2, 1]
        assert len(out) == 40


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 9), min_size=20, max_size=60), seed=st.integers(0, 99))
def test_groups_stay_together(sizes: list[int], seed: int) -> None:
    ends = np.cumsum(sizes)
    groups = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    made = stratify(np.ones((int(ends[-1]), 1), dtype=np.int64), groups, (0.7, 0.3), seed)
    for group in groups:
        assert sum(set(group) <= set(part) for part in made) == 1
    assert abs(len(made[1]) - 0.3 * ends[-1]) <= 5


@pytest.mark.parametrize(
    ("sizes", "fractions", "parts"),
    [
        ((6, 3, 3), (2 / 3, 1 / 3), [[0, 1], [2]]),  # two places are left for the second group: enough
        ((7, 3), (0.8, 0.2), [[0], [1]]),  # one is left: too few
    ],
)
def test_a_group_goes_where_it_is_wanted_most_and_half_of_it_has_room(
    sizes: tuple[int, ...], fractions: tuple[float, ...], parts: list[list[int]]
) -> None:
    ends = np.cumsum(sizes)
    groups = [list(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    presence = np.zeros((int(ends[-1]), len(sizes)), dtype=np.int64)
    presence[0, 0] = 1  # the rarest class, so that the first group is dealt out first
    for label, rows in list(enumerate(groups))[1:]:
        presence[rows, label] = 1
    made = stratify(presence, groups, fractions, 0)
    assert made == [sorted(row for group in part for row in groups[group]) for part in parts]


def test_each_part_has_its_share_of_images_without_objects(make_rows) -> None:
    rows = make_rows(*[[[1, 1, 9, 9]], []] * 20, size=(8, 8))
    random = np.random.default_rng(0)
    unlike = [random.bytes(len(prints(rows.select([0]))[0])) for _ in range(len(rows))]
    for seed in range(10):
        _, out = partition(rows, unlike, [0.75, 0.25], seed)
        assert [len(rows[row]["objects"]["bbox"]) for row in out].count(0) == 5


def test_copies_are_on_one_side() -> None:
    split = generate("shapes?train=20&validation=0&edge=96")["train"]
    twice = Dataset.from_list(
        [row | {"image_id": row["image_id"] + 1000 * copy} for row in split for copy in (0, 1)], features=split.features
    )
    for seed in range(3):
        train, validation = divided(twice, 0.3, seed)
        assert not {one % 1000 for one in ids(train)} & {one % 1000 for one in ids(validation)}
        assert 8 <= len(validation) <= 16


def test_one_scene_is_divided_between_neighbors_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    split = generate("shapes?train=1&validation=0&edge=96")["train"]
    many = Dataset.from_list([split[0] | {"image_id": number} for number in range(20)], features=split.features)
    with caplog.at_level(logging.WARNING):
        stay, out = partition(many, prints(many), [0.75, 0.25], 0)
    assert out == list(range(out[0], out[-1] + 1))
    assert 3 <= len(out) <= 10
    assert sorted(stay + out) == list(range(20))
    assert "20 images show few scenes" in caplog.text


def test_only_the_scene_that_is_too_large_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """40 views of one object beside twelve pairs: the pairs stay together without a warning."""
    split = generate("shapes?train=13&validation=0&edge=96")["train"]
    order = [0] * 40 + [image for image in range(1, 13) for _ in range(2)]
    many = Dataset.from_list(
        [split[image] | {"image_id": number} for number, image in enumerate(order)], features=split.features
    )
    with caplog.at_level(logging.WARNING):
        parts = partition(many, prints(many), [0.75, 0.25], 0)
    assert 8 <= len(parts[1]) <= 32
    for pair in range(40, 64, 2):
        assert sum({pair, pair + 1} <= set(part) for part in parts) == 1
    assert "40 images show few scenes" in caplog.text


def test_too_few_images_raise() -> None:
    with pytest.raises(InputError, match=r"0\.1 of 2 train images is 0"):
        divided(generate("shapes?train=2&validation=0")["train"], 0.1, 0)
