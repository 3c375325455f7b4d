"""Contents of the tab Lesson: assignments, set prediction and box distances of toy data, and a quiz."""

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
    """The query of each object, and the total cost."""

    queries: tuple[int, ...]
    cost: float


def all_assignments(costs: Costs) -> list[Assignment]:
    """Return all one-to-one assignments of a square matrix, cheapest first."""
    rows = np.arange(len(costs))
    permutations = itertools.permutations(range(len(costs)))
    assignments = [Assignment(queries, float(costs[rows, list(queries)].sum())) for queries in permutations]
    return sorted(assignments, key=lambda assignment: assignment.cost)


def optimal_assignment(costs: Costs) -> Assignment:
    """Return the assignment of the matcher's solver."""
    rows, columns = hungarian(costs[None])
    order = rows[0].argsort()
    return Assignment(tuple(columns[0][order].tolist()), float(costs[rows[0], columns[0]].sum()))


@dataclass(frozen=True)
class SolverTimes:
    """Milliseconds of both solvers for a number of objects."""

    objects: int
    exhaustive: float
    hungarian: float


def measure_solvers(sizes: Sequence[int] = range(2, 8)) -> list[SolverTimes]:
    """Measure exhaustive search and the matcher's solver on random square matrices."""
    generator = np.random.default_rng(0)
    times = []
    for size in sizes:
        costs = generator.random((size, size))
        times.append(
            SolverTimes(size, _milliseconds(all_assignments, costs, 1), _milliseconds(hungarian, costs[None], 20))
        )
    return times


def _milliseconds(solver: Callable[[Costs], object], costs: Costs, repetitions: int) -> float:
    solver(costs)  # the first call loads code and is not measured
    start = time.perf_counter()
    for _ in range(repetitions):
        solver(costs)
    return 1000 * (time.perf_counter() - start) / repetitions


SIDES = (0.1, 0.4)  # of the small and the large box, in fractions of the image
# Three objects and six queries, cxcywh in fractions; K = 2 classes and no-object.
CLASSES = ("ball", "box")
OBJECTS = ([0.25, 0.35, 0.26, 0.3], [0.7, 0.3, 0.3, 0.32], [0.55, 0.76, 0.3, 0.26])
LABELS = (0, 1, 0)
QUERIES = (
    [0.27, 0.37, 0.24, 0.3], [0.22, 0.32, 0.3, 0.26], [0.68, 0.32, 0.32, 0.3],
    [0.43, 0.68, 0.25, 0.23], [0.85, 0.8, 0.18, 0.2], [0.1, 0.8, 0.14, 0.18],
)  # fmt: skip
PROBABILITIES = (
    [0.80, 0.05, 0.15], [0.70, 0.10, 0.20], [0.10, 0.75, 0.15],
    [0.45, 0.15, 0.40], [0.10, 0.15, 0.75], [0.05, 0.05, 0.90],
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Toy:
    """The toy image; `centers` moves the boxes `A` to `C` and `q1` to `q6`, in fractions."""

    centers: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def predictions(self) -> Predictions:
        """The predictions of the six queries at one layer."""
        boxes = self._move(QUERIES, [f"q{number + 1}" for number in range(len(QUERIES))])
        return Predictions(torch.tensor(PROBABILITIES).log()[None, None], boxes[None, None])

    @property
    def targets(self) -> Targets:
        """The three objects."""
        truth = {"class_labels": torch.tensor(LABELS), "boxes": self._move(OBJECTS, ["A", "B", "C"])}
        return Targets.from_labels([truth], torch.device("cpu"))

    def _move(self, start: Sequence[Sequence[float]], names: Sequence[str]) -> Tensor:
        """Return the boxes at their new centers, limited to the image."""
        boxes = torch.tensor(start)
        for index, name in enumerate(names):
            if name in self.centers:
                half = boxes[index, 2:] / 2
                center = torch.tensor(self.centers[name])
                boxes[index, :2] = torch.minimum(torch.maximum(center, half), 1 - half)
        return boxes

    def costs(self, class_weight: float, l1_weight: float, giou_weight: float) -> Costs:
        """Return the weighted sum of the costs, `[T, Q]`."""
        terms: list[Cost] = [
            ClassCost(weight=class_weight), BoxL1Cost(weight=l1_weight), GIoUCost(weight=giou_weight),
        ]  # fmt: skip
        values = [(term.weight * term(self.predictions, self.targets)[0]).double() for term in terms]
        total: Costs = torch.stack(values).sum(0).numpy()
        return total


def parse_centers(text: str) -> dict[str, tuple[float, float]]:
    """Return the centers of moved boxes by name from JSON; none for invalid text."""
    try:
        pairs = json.loads(text or "{}")
        centers = {str(name): (float(x), float(y)) for name, (x, y) in pairs.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}
    return {name: center for name, center in centers.items() if all(map(math.isfinite, center))}


def match_by_each_method(costs: Costs) -> dict[str, list[list[int]]]:
    """Return the queries of each object by matching method."""
    methods: dict[str, list[list[int]]] = {}
    for name, solver in (("optimal, one to one", hungarian), ("greedy, one to one", greedy)):
        rows, columns = solver(costs[None])
        methods[name] = [columns[0][rows[0] == target].tolist() for target in range(len(costs))]
    nearest = costs.argmin(0)
    # As in detectors with anchors: every query that is near enough to an object is trained to predict it.
    is_near = costs.min(0) < np.sort(costs.min(0))[4]
    methods["each query to its nearest object"] = [
        [query for query in range(costs.shape[1]) if is_near[query] and nearest[query] == target]
        for target in range(len(costs))
    ]
    return methods


def box_pair(shift: float, size: float, side: float, down: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return a true and a predicted box, cxcywh.

    The prediction is `shift` widths to the right and `down` heights below, and `size` times as large.
    """
    truth = torch.tensor([0.4, 0.5, side, side])
    return truth, torch.tensor([0.4 + shift * side, 0.5 + down * side, side * size, side * size])


def _iou_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    return 1 - iou(predicted, truth)


_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L1": BoxL1Loss().of_pair,
    "1 − IoU": _iou_loss,
    "1 − GIoU": GIoULoss().of_pair,
    "1 − DIoU": DIoULoss().of_pair,
    "1 − CIoU": CIoULoss().of_pair,
}


def distances(shift: float, size: float, down: float = 0.0) -> list[dict[str, float]]:
    """Return the distances by name for a small and a large pair with the same relative error."""
    rows = []
    for side in SIDES:
        truth, predicted = (box[None] for box in box_pair(shift, size, side, down))
        row = {"side": side, "IoU": float(iou(predicted, truth)), "GIoU": float(giou(predicted, truth))}
        rows.append(row | {name: float(distance(predicted, truth).sum()) for name, distance in _DISTANCES.items()})
    return rows


def gradients(shift: float, size: float, down: float = 0.0) -> list[tuple[float, str, list[float]]]:
    """Return side, distance and its gradient by the predicted x, y, width and height, for both pairs."""
    rows = []
    for side in SIDES:
        truth, predicted = (box[None] for box in box_pair(shift, size, side, down))
        for name, distance in _DISTANCES.items():
            variable = predicted.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(distance(variable, truth).sum(), variable)
            rows.append((side, name, gradient[0].tolist()))
    return rows


@dataclass(frozen=True)
class Areas:
    """Areas of the intersection, the union and the hull (the smallest box around both) of two boxes."""

    intersection: float
    union: float
    hull: float


def areas(truth: Tensor, predicted: Tensor) -> Areas:
    """Return the areas of two boxes, cxcywh, in squares of the image."""
    corners = cxcywh_to_xyxy(truth), cxcywh_to_xyxy(predicted)
    common, around = (
        float((box[2:] - box[:2]).clamp(min=0).prod()) for box in (intersection(*corners), hull(*corners))
    )
    return Areas(common, float(truth[2:].prod() + predicted[2:].prod()) - common, around)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection of two boxes, all xyxy; it has a negative side if they do not touch."""
    return torch.cat([torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])])


def hull(a: Tensor, b: Tensor) -> Tensor:
    """Return the smallest box around two boxes, all xyxy."""
    return torch.cat([torch.minimum(a[:2], b[:2]), torch.maximum(a[2:], b[2:])])


# Two objects and two queries whose matching differs: a very unlikely pair is cheap by probability, expensive by logarithm.
PAIR_PROBABILITIES = np.array([[0.90, 0.50], [0.40, 0.05]])


def by_probability_and_logarithm() -> tuple[Assignment, Assignment]:
    """Return the best assignments of `PAIR_PROBABILITIES` for the costs -p and -log p."""
    return optimal_assignment(-PAIR_PROBABILITIES), optimal_assignment(-np.log(PAIR_PROBABILITIES))


@dataclass(frozen=True)
class Question:
    """A question with its answers, the index of the right one, and the explanation."""

    text: str
    answers: tuple[str, ...]
    right: int
    explanation: str


QUIZ = (
    Question(
        "A model has 100 queries, and an image has 7 objects. How many queries are trained to predict “no object”?",
        ("none", "7", "93", "100"),
        2,
        "The ground truth is padded to 100: 7 objects, each matched with one query, and 93 × no-object.",
    ),
    Question(
        "Two queries predict the same object, and both boxes are nearly right. What does one-to-one matching do?",
        (
            "It trains both to predict the object",
            "It trains the better one to predict the object, and the other to predict no-object",
            "It averages them",
        ),
        1,
        "Only one query is matched. That is why DETR needs no non-maximum suppression.",
    ),
    Question(
        "A predicted box does not touch the object’s box. Which term has a gradient that moves it closer?",
        ("IoU", "GIoU", "neither"),
        1,
        "IoU is constantly 0 while the boxes don’t touch. GIoU decreases with the empty part of the box around both.",
    ),
    Question(
        "Why is the weight of no-object in the loss 0.1?",
        (
            "It is easier to learn",
            "It is the target of most queries and would outweigh the objects",
            "It has no box",
        ),
        1,
        "With 93 of 100 queries on no-object, a model that detects nothing would have a low loss.",
    ),
)


def review_answer(index: int, answer: str | None) -> str:
    """Return whether an answer of the quiz is right, with the explanation."""
    if answer is None:
        return ""
    question = QUIZ[index]
    right = answer == question.answers[question.right]
    return f"**{'Right' if right else 'Wrong'}.** {question.explanation}"
