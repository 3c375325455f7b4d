from __future__ import annotations

import torch

from detr_ft.criterion import detr_criterion
from detr_ft.evaluation.query_statistics import MatchingStatistics
from detr_ft.structures import Predictions, Targets

A, B, ELSEWHERE = [0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3], [0.5, 0.1, 0.05, 0.05]


def class_logits(*labels: int) -> torch.Tensor:
    """Logits of queries with a confident class; 2 is no-object."""
    return torch.nn.functional.one_hot(torch.tensor(labels), 3).float() * 10


def gathered(batches: int = 1) -> MatchingStatistics:
    """Three queries: at the first layer they are exchanged, at the last the third repeats the first."""
    logits = torch.stack([class_logits(1, 0, 2), class_logits(0, 1, 0)])[:, None]
    boxes = torch.tensor([[B, A, ELSEWHERE], [A, B, A]])[:, None]
    truth = [{"class_labels": torch.tensor([0, 1]), "boxes": torch.tensor([A, B])}]
    one = MatchingStatistics(detr_criterion().matcher)
    for _ in range(batches):
        one.add(Predictions(logits, boxes), Targets.from_labels(truth, torch.device("cpu")))
    return one


def test_layers_and_queries_are_counted() -> None:
    for batches in (1, 3):
        summary = gathered(batches).summary()
        first, last = summary.layers
        assert (round(first.iou, 5), first.right, first.settled, first.answers_an_object) == (1, 1, 0, 1)
        assert (round(last.iou, 5), last.right, last.settled, last.answers_an_object) == (1, 1, 1, 1.5)
        assert (summary.objects, summary.unreached, summary.beyond) == (2 * batches, 0, 0)
        assert (summary.queries, summary.queries_used) == (3, 2)


def test_places_are_the_boxes_of_the_queries_that_are_used_most() -> None:
    places = gathered(3).most_used(2)
    assert [(query, taken, boxes.shape) for query, taken, boxes in places] == [(0, 3, (3, 4)), (1, 3, (3, 4))]
    assert torch.equal(places[1][2][0], torch.tensor(B))


def test_unreached_objects_and_more_objects_than_queries_are_counted() -> None:
    one = MatchingStatistics(detr_criterion().matcher)
    truth = [{"class_labels": torch.tensor([0, 0, 1]), "boxes": torch.tensor([A, B, ELSEWHERE])}]
    nothing = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    answer = Predictions(
        class_logits(0, 2)[None, None].repeat(1, 2, 1, 1), torch.tensor([A, B])[None, None].repeat(1, 2, 1, 1)
    )
    one.add(answer, Targets.from_labels([*truth, nothing], torch.device("cpu")))
    summary = one.summary()
    assert (summary.objects, summary.unreached, summary.beyond) == (3, 1, 1)
    assert summary.layers[0].answers_an_object == 1


def test_a_set_without_objects_has_empty_statistics() -> None:
    assert MatchingStatistics(detr_criterion().matcher).summary().layers == []
    nothing = {"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    one = MatchingStatistics(detr_criterion().matcher)
    one.add(
        Predictions(class_logits(0, 2)[None, None], torch.tensor([A, B])[None, None]),
        Targets.from_labels([nothing], torch.device("cpu")),
    )
    assert one.summary().queries_used == 0


def test_a_query_with_a_low_score_covers_no_object() -> None:
    """Two queries on one object, both for its class: with 0.9, and with less than a half."""
    one = MatchingStatistics(detr_criterion().matcher)
    logits = torch.tensor([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3]]).log()[None, None]
    truth = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([A])}]
    one.add(Predictions(logits, torch.tensor([[[A, A]]])), Targets.from_labels(truth, torch.device("cpu")))
    assert one.summary().layers[0].answers_an_object == 1
