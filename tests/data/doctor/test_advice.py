"""Statistics of the stated sizes, and the advice with its reasons that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import DatasetDict

from detr_ft.data.doctor import examine
from detr_ft.data.doctor.advice import advise, enough_queries, expectation, longest_edge, num_queries
from detr_ft.data.doctor.statistics import SplitStatistics, Spread, statistics_of
from detr_ft.data.sources.load import load_data


def figures(
    images: int = 500, side: float = 1000, share: float = 0.05, objects: int = 5, **counts: int
) -> SplitStatistics:
    """Figures of images with the given longest side, and of boxes with the given tenth of shorter sides."""
    per_class = counts or {"dog": 300}
    return SplitStatistics(
        images, sum(per_class.values()), per_class, per_class, 0, 0, 0,
        longest_side=Spread(median=side), shorter_side=Spread(), shorter_share=Spread(tenth=share),
        aspect=Spread(), objects=Spread(most=objects),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "share", "edge", "reason"),
    [
        (2000, 0.1, 256, "26 pixels or more"),
        (2000, 0.0125, 640, "8 pixels or more"),
        (2000, 0.01, 800, "8 pixels or more"),
        (4000, 0.0001, 1312, "shorter side of 0 pixels"),
        (500, 0.0125, 480, "no larger than 500 pixels"),
        (200, 0.05, 192, "no larger than 200 pixels, and enlarging them adds nothing"),
        (64, 0.05, 128, "no larger than 64 pixels, and smaller ones would have too few positions"),
        (2000, 0, 1312, "no boxes"),
    ],
)
def test_the_longest_edge(side: float, share: float, edge: int, reason: str) -> None:
    advice = longest_edge(figures(side=side, share=share))
    assert advice.value == edge
    assert edge % 32 == 0
    assert reason in advice.text


@pytest.mark.parametrize(("most", "queries"), [(0, 100), (66, 100), (67, 150), (130, 200), (500, 900), (1000, 1500)])
def test_the_queries(most: int, queries: int) -> None:
    advice = num_queries({"train": figures(objects=1), "test": figures(objects=most)})
    assert advice.value == queries
    assert str(most) in advice.text


@pytest.mark.parametrize(
    ("most", "queries", "words"),
    [
        (16, 25, "they suffice, since no image has more than 16 objects"),
        (17, 100, "few for images of 17 objects. model.num_queries: 100"),
        (26, 100, "too few for images of 26 objects. model.num_queries: 100"),
        (80, 150, "model.num_queries: 150"),
    ],
)
def test_the_queries_of_a_checkpoint_or_more(most: int, queries: int, words: str) -> None:
    advice = enough_queries({"train": figures(objects=1), "test": figures(objects=most)}, 25)
    assert advice.value == queries
    assert advice.text.startswith("The checkpoint has 25 queries: ")
    assert words in advice.text


@pytest.mark.parametrize(
    ("images", "words"),
    [(40, "first impression"), (202, "frozen stem"), (5000, "118,000"), (90_000, "hundreds of epochs")],
)
def test_the_expected_quality(images: int, words: str) -> None:
    text = expectation(figures(images, dog=30, cat=10)).text
    assert text.startswith(f"{images} images, about 20 boxes a class")
    assert words in text


def test_classes_with_few_boxes_and_rare_ones_are_named() -> None:
    reported = {one.topic: one.text for one in advise({"train": figures(dog=900, cat=1000, owl=40, ant=3, bee=0)})}
    assert "ant (3)" in reported["few boxes"]
    assert "owl (x" in reported["rare classes"]
    assert not any(name in reported["rare classes"] for name in ("ant", "bee", "dog"))
    assert "no validation split" in reported["splits"]


def test_figures_open_no_image(make_rows, tmp_path: Path) -> None:
    rows = make_rows(
        [[0, 0, 20, 10], [0, 0, 50, 50], [0, 0, 100, 100]], [[0, 0, -1, 5]], size=(200, 150), labels=[[0, 1, 1], [0]],
        names=["dog", "cat"],
    )  # fmt: skip
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    reported = statistics_of(rows)
    assert (reported.images, reported.boxes, reported.small, reported.medium, reported.large) == (2, 3, 1, 1, 1)
    assert reported.boxes_per_class == {"dog": 2, "cat": 2}
    assert reported.images_per_class == {"dog": 2, "cat": 1}
    assert reported.shorter_side == Spread(10, 18, 50, 90, 100)
    assert reported.shorter_share.median == 0.25
    assert reported.objects.most == 3
    assert advise({"train": reported})[0].value == 192


def test_boxes_that_shrinking_makes_tiny_are_counted_by_class(make_rows) -> None:
    boxes = [[[10, 10, 30, 30], [50, 50, 9, 30]], [[10, 10, 7, 7]]]
    rows = make_rows(*boxes, size=(400, 300), labels=[[0, 1], [1]], names=["dog", "cat"])
    (found,) = examine(DatasetDict({"train": rows}), longest_edge=160).findings
    assert (found.kind, found.image_id, found.annotation) == ("tiny after resize", 101, 1050)
    assert found.message.startswith("2 of 2 boxes of 'cat' are under 4 pixels at longest_edge 160; this one is 2.8")
    assert examine(DatasetDict({"train": rows}), longest_edge=400).findings == ()


def test_names_that_are_nearly_the_same(make_rows) -> None:
    names = ["Dog", "dog ", "dogs", "cat", "class", "bus", "a", "A"]
    labels = [list(range(len(names)))]
    rows = make_rows([[10 * place, 0, 5, 5] for place in labels[0]], labels=labels, names=names)
    (found,) = examine(DatasetDict({"train": rows})).findings
    assert found.kind == "similar class names"
    assert (
        found.message == "'Dog' (1), 'dog ' (1), 'dogs' (1) are nearly the same name; in brackets the number of boxes"
    )


def test_real_figures(real_data: Callable[[str], Path]) -> None:
    reported = {split: statistics_of(rows) for split, rows in load_data(str(real_data("bccd_voc"))).items()}
    advice = {one.topic: one for one in advise(reported)}
    assert advice["num_queries"].value == 100
    assert "205 images" in advice["expectation"].text
