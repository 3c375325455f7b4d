from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.sampling import BatchSampler, aspect_ratios, balanced_weights, repeat_factors, shard_batch
from detr_ft.data.schema import detection_features, detection_objects


@settings(deadline=None)
@given(
    number=st.integers(1, 300),
    size=st.integers(1, 9),
    seed=st.integers(0, 50),
    epoch=st.integers(0, 9),
    shaped=st.booleans(),
)
def test_every_image_comes_once_and_the_order_is_that_of_seed_and_epoch(
    number: int, size: int, seed: int, epoch: int, shaped: bool
) -> None:
    shapes = np.random.default_rng(0).uniform(0.3, 3, number).tolist() if shaped else None

    def drawn(epoch: int) -> list[list[int]]:
        batches = BatchSampler(number, size, seed, aspect_ratios=shapes)
        assert len(batches) == len(batches.of_epoch(epoch))
        return batches.of_epoch(epoch)

    found = drawn(epoch)
    assert sorted(index for batch in found for index in batch) == list(range(number))
    assert all(len(batch) == size for batch in found[:-1])
    assert found == drawn(epoch)
    if number > 60 and size > 1:
        assert found != drawn(epoch + 1)


def test_images_of_similar_shape_come_together() -> None:
    shapes = np.exp(np.random.default_rng(0).uniform(-1, 1, 512)).tolist()

    def spread(batches: BatchSampler) -> float:
        return float(
            np.mean([max(shapes[i] for i in batch) / min(shapes[i] for i in batch) for batch in batches.of_epoch(0)])
        )

    assert spread(BatchSampler(512, 8, 0, aspect_ratios=shapes)) < 1.5 < 4 < spread(BatchSampler(512, 8, 0))


@settings(deadline=None)
@given(st.lists(st.floats(1, 7), min_size=1, max_size=100), st.integers(0, 30))
def test_images_are_repeated_as_often_as_they_should(repeats: list[float], epoch: int) -> None:
    batches = BatchSampler(len(repeats), 4, 0, repeats=repeats)
    counts = Counter(index for batch in batches.of_epoch(epoch) for index in batch)
    assert len(batches) == len(batches.of_epoch(epoch))
    assert counts.total() == round(sum(repeats))
    for index, repeat in enumerate(repeats):
        assert abs(counts[index] - repeat) < 1.5


@settings(deadline=None)
@given(
    batch=st.lists(st.integers(0, 999), min_size=1, max_size=60), size=st.integers(1, 9), processes=st.integers(1, 5)
)
def test_a_batch_is_shared_out_whole_and_evenly(batch: list[int], size: int, processes: int) -> None:
    made = shard_batch(batch, size, processes)
    assert len(made) == processes
    rounds = {len(own) for own in made}
    assert rounds == {-(-len(batch) // (size * processes))}
    in_turn = [part for parts in zip(*made, strict=True) for part in parts]
    assert [index for part in in_turn for index in part] == batch
    lengths = [len(part) for part in in_turn]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_fractions_are_drawn_fairly() -> None:
    batches, counts = BatchSampler(10, 4, 0, repeats=[1.3] * 10), Counter[int]()
    for epoch in range(400):
        counts.update(index for batch in batches.of_epoch(epoch) for index in batch)
    assert all(count / 400 == pytest.approx(1.3, abs=0.1) for count in counts.values())


def test_repeat_factors_are_those_of_the_paper() -> None:
    split = generate("shapes?train=60&validation=0")["train"]
    classes_of_images = [set(objects["category"]) for objects in split["objects"]]
    frequency = {
        label: sum(label in labels for labels in classes_of_images) / 60 for label in set().union(*classes_of_images)
    }
    factors = repeat_factors(split, 0.5)
    for labels, factor in zip(classes_of_images, factors, strict=True):
        expected = max([1.0, *((0.5 / frequency[label]) ** 0.5 for label in labels)])
        assert factor == pytest.approx(expected)
    assert max(factors) > 1
    assert repeat_factors(split, 1e-9) == [1.0] * 60


def test_shapes_of_a_split_and_of_images_without_a_size() -> None:
    split = generate("shapes?train=3&validation=0")["train"]
    assert aspect_ratios(split) == [row["width"] / row["height"] for row in split]
    assert aspect_ratios(split.map(lambda row: {"height": 0})) == [1.0] * 3


def test_a_set_of_few_shapes_is_not_cut_into_the_same_batches_every_epoch() -> None:
    batches, seen = BatchSampler(32, 4, 0, aspect_ratios=np.linspace(1, 1.1, 32).tolist()), set[frozenset[int]]()
    for epoch in range(5):
        seen |= {frozenset(batch) for batch in batches.of_epoch(epoch)}
    assert len(seen) > 30  # of 40; without a blur they would be the same 8


def test_class_weights_are_one_over_the_root_of_a_classes_boxes() -> None:
    objects = [detection_objects([[0, 0, 1, 1]] * 5, [0, 0, 0, 0, 1]), detection_objects([], [])]
    columns = {
        "image": [{"path": "x.png", "bytes": None}] * 2,
        "image_id": [0, 1],
        "width": [9] * 2,
        "height": [9] * 2,
        "objects": objects,
    }
    weights = balanced_weights(Dataset.from_dict(columns, features=detection_features(["a", "b"])))
    assert weights == pytest.approx([2 / 3, 4 / 3])
