"""The method on toy data, computed by the code that trains: assignments, sets, distances of boxes, their sum, and the quiz."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detr_ft.boxes import cxcywh_to_xyxy, giou, iou
from detr_ft.criterion import BoxL1Cost, BoxL1Loss, CIoULoss, ClassCost, DIoULoss, GIoUCost, GIoULoss
from detr_ft.criterion.assignment import greedy, hungarian
from detr_ft.criterion.base import Cost
from detr_ft.structures import Predictions, Targets

Costs = NDArray[np.float64]


@dataclass(frozen=True)
class Assignment:
    """Which query each object gets, and what that costs."""

    queries: tuple[int, ...]
    cost: float


def every_assignment(costs: Costs) -> list[Assignment]:
    """All one-to-one assignments of a square matrix, the cheapest first."""
    rows = np.arange(len(costs))
    tried = itertools.permutations(range(len(costs)))
    return sorted((Assignment(one, float(costs[rows, list(one)].sum())) for one in tried), key=lambda one: one.cost)


def optimal(costs: Costs) -> Assignment:
    """What the matcher's own solver finds."""
    rows, columns = hungarian(costs[None])
    order = rows[0].argsort()
    return Assignment(tuple(columns[0][order].tolist()), float(costs[rows[0], columns[0]].sum()))


def solving_times(sizes: Sequence[int] = range(2, 8)) -> list[tuple[int, float, float]]:
    """Milliseconds to find the best assignment of N objects by trying all, and by the matcher's solver; measured here and now."""
    generator = np.random.default_rng(0)
    found = []
    for size in sizes:
        costs = generator.random((size, size))
        found.append((size, _milliseconds(every_assignment, costs, 1), _milliseconds(hungarian, costs[None], 20)))
    return found


def _milliseconds(solver: Callable[[Costs], object], costs: Costs, times: int) -> float:
    solver(costs)  # what is loaded at first is no part of it
    began = time.perf_counter()
    for _ in range(times):
        solver(costs)
    return 1000 * (time.perf_counter() - began) / times


SIDES = (0.1, 0.4)  # of the small and the large box, in fractions
# Three objects and six queries, cxcywh in fractions; K = 2 classes and no-object.
CLASSES = ("ball", "box")
OBJECTS = ([0.25, 0.35, 0.26, 0.3], [0.7, 0.3, 0.3, 0.32], [0.55, 0.76, 0.3, 0.26])
LABELS = (0, 1, 0)
QUERIES = (
    [0.27, 0.37, 0.24, 0.3], [0.22, 0.32, 0.3, 0.26], [0.68, 0.32, 0.32, 0.3],
    [0.43, 0.68, 0.25, 0.23], [0.85, 0.8, 0.18, 0.2], [0.1, 0.8, 0.14, 0.18],
)  # fmt: skip
SAID = (
    [0.80, 0.05, 0.15], [0.70, 0.10, 0.20], [0.10, 0.75, 0.15],
    [0.45, 0.15, 0.40], [0.10, 0.15, 0.75], [0.05, 0.05, 0.90],
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Toy:
    """The toy image, with some of its boxes moved: the centres, in fractions, of `A` to `C` and `q1` to `q6`."""

    moved: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def predictions(self) -> Predictions:
        """What the six queries say, at one layer of one image."""
        boxes = self._placed(QUERIES, [f"q{number + 1}" for number in range(len(QUERIES))])
        return Predictions(torch.tensor(SAID).log()[None, None], boxes[None, None])

    @property
    def targets(self) -> Targets:
        """The three objects."""
        truth = {"class_labels": torch.tensor(LABELS), "boxes": self._placed(OBJECTS, ["A", "B", "C"])}
        return Targets.from_labels([truth], torch.device("cpu"))

    def _placed(self, start: Sequence[Sequence[float]], names: Sequence[str]) -> Tensor:
        boxes = torch.tensor(start)
        for place, name in enumerate(names):
            if name in self.moved:
                half = boxes[place, 2:] / 2
                centre = torch.tensor(self.moved[name])
                boxes[place, :2] = torch.minimum(torch.maximum(centre, half), 1 - half)
        return boxes

    def costs(self, of_class: float, l1: float, giou_weight: float) -> Costs:
        """`[T, Q]`: the weighted sum of the terms."""
        terms: list[Cost] = [ClassCost(weight=of_class), BoxL1Cost(weight=l1), GIoUCost(weight=giou_weight)]
        values = [(term.weight * term(self.predictions, self.targets)[0]).double() for term in terms]
        total: Costs = torch.stack(values).sum(0).numpy()
        return total


def ways_of_matching(costs: Costs) -> dict[str, list[list[int]]]:
    """For each way, the queries that each object gets."""
    found: dict[str, list[list[int]]] = {}
    for name, solver in (("optimal, one to one", hungarian), ("greedy, one to one", greedy)):
        rows, columns = solver(costs[None])
        found[name] = [columns[0][rows[0] == target].tolist() for target in range(len(costs))]
    nearest = costs.argmin(0)
    # What a detector with anchors does: every query that is near enough to an object is trained to find it.
    near = costs.min(0) < np.sort(costs.min(0))[4]
    found["each query to its nearest object"] = [
        [query for query in range(costs.shape[1]) if near[query] and nearest[query] == target]
        for target in range(len(costs))
    ]
    return found


def slopes(shift: float, size: float, down: float = 0.0) -> list[tuple[float, str, list[float]]]:
    """For each of both pairs and each distance, the gradient by the predicted x, y, width and height: side, name, gradient."""
    ways = {"L1": BoxL1Loss().of_pair, "1 − IoU": _without_overlap, "1 − GIoU": GIoULoss().of_pair}
    ways |= {"1 − DIoU": DIoULoss().of_pair, "1 − CIoU": CIoULoss().of_pair}
    found = []
    for side in SIDES:
        true, said = (one[None] for one in pair_of(shift, size, side, down))
        for name, way in ways.items():
            asked = said.clone().requires_grad_()
            (slope,) = torch.autograd.grad(way(asked, true).sum(), asked)
            found.append((side, name, slope[0].tolist()))
    return found


def _without_overlap(said: Tensor, true: Tensor) -> Tensor:
    return 1 - iou(said, true)


def moved_boxes(told: str) -> dict[str, tuple[float, float]]:
    """What the page says of boxes that were moved: JSON of names and centres; nothing of what is not that."""
    try:
        pairs = json.loads(told or "{}")
        found = {str(name): (float(x), float(y)) for name, (x, y) in pairs.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
    return {name: centre for name, centre in found.items() if all(map(math.isfinite, centre))}


def distances(shift: float, size: float, down: float = 0.0) -> list[dict[str, float]]:
    """For a small and a large box of the same relative error: the distances by name.

    The prediction lies `shift` of the box's width to the right and `down` of its height below, and is `size` times as large.
    """
    told = []
    for side in SIDES:
        true, said = (one[None] for one in pair_of(shift, size, side, down))
        row = {"side": side, "IoU": float(iou(said, true)), "GIoU": float(giou(said, true))}
        for name, loss in (
            ("L1", BoxL1Loss()),
            ("1 − GIoU", GIoULoss()),
            ("1 − DIoU", DIoULoss()),
            ("1 − CIoU", CIoULoss()),
        ):
            row[name] = float(loss.of_pair(said, true).sum())
        told.append(row)
    return told


def pair_of(shift: float, size: float, side: float, down: float = 0.0) -> tuple[Tensor, Tensor]:
    """The true box and the predicted one, cxcywh."""
    true = torch.tensor([0.4, 0.5, side, side])
    return true, torch.tensor([0.4 + shift * side, 0.5 + down * side, side * size, side * size])


@dataclass(frozen=True)
class Areas:
    """Of both boxes together, of what they share, and of the smallest box around both."""

    shared: float
    union: float
    around: float


def areas(true: Tensor, said: Tensor) -> Areas:
    """Of two boxes cxcywh, in squares of the image."""
    corners = cxcywh_to_xyxy(true), cxcywh_to_xyxy(said)
    shared, around = (float((box[2:] - box[:2]).clamp(min=0).prod()) for box in (overlap(*corners), hull(*corners)))
    return Areas(shared, float(true[2:].prod() + said[2:].prod()) - shared, around)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """The intersection of two boxes, all xyxy; with a negative side where they do not touch."""
    return torch.cat([torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])])


def hull(a: Tensor, b: Tensor) -> Tensor:
    """The smallest box around two boxes, all xyxy."""
    return torch.cat([torch.minimum(a[:2], b[:2]), torch.maximum(a[2:], b[2:])])


# Two objects and two queries, where the probability and its logarithm choose differently: a very bad pair costs little by the
# first, and much by the second.
DIFFERENT = np.array([[0.90, 0.50], [0.40, 0.05]])


def by_probability_and_logarithm() -> tuple[Assignment, Assignment]:
    """The best assignments of `DIFFERENT` by minus the probability, and by minus its logarithm."""
    return optimal(-DIFFERENT), optimal(-np.log(DIFFERENT))


@dataclass(frozen=True)
class Question:
    """With its answers, the right one's place, and why."""

    text: str
    answers: tuple[str, ...]
    right: int
    why: str


QUIZ = (
    Question(
        "A model has 100 queries, and an image 7 objects. How many queries are trained to say “no object”?",
        ("none", "7", "93", "100"),
        2,
        "The truth is padded to 100: 7 objects, each with exactly one query, and 93 times no-object.",
    ),
    Question(
        "Two queries lie on the same object, both nearly right. What does one-to-one matching do?",
        (
            "It trains both to find it",
            "It trains the better one to find it, the other to say no-object",
            "It averages them",
        ),
        1,
        "Only one may have it. That is why DETR needs no suppression of duplicates afterwards.",
    ),
    Question(
        "A predicted box does not touch the object's. Which term still says in which direction to move?",
        ("IoU", "GIoU", "neither"),
        1,
        "IoU is 0 wherever they don't touch, with no slope. GIoU falls with the empty part of the box around both.",
    ),
    Question(
        "Why is no-object weighed down by 10 in the loss?",
        ("It is easier", "It is most of the queries, and would drown the objects", "It has no box"),
        1,
        "With 93 of 100 queries on no-object, a model that finds nothing would be nearly right.",
    ),
)


def answered(place: int, chosen: str | None) -> str:
    """What is said of an answer."""
    if chosen is None:
        return ""
    question = QUIZ[place]
    right = chosen == question.answers[question.right]
    return f"**{'Right.' if right else 'Not quite.'}** {question.why}"
