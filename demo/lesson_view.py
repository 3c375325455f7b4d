"""HTML and SVG of the lesson: assignments, measured times, the toy image, pairs of boxes, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from lesson import (
    CLASSES,
    LABELS,
    PROBABILITIES,
    SIDES,
    Assignment,
    Costs,
    SolverTimes,
    Toy,
    areas,
    box_pair,
    hull,
    intersection,
)
from markup import css_color, header_row, table
from torch import Tensor

from detr_ft.boxes import cxcywh_to_xyxy

_TOY_EDGE, _PAIR_EDGE = 420, 300  # sides of the drawings in SVG units
_HATCHING = (
    '<defs><pattern id="empty" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" y2="7"/></pattern></defs>'
)


def _object_name(target: int) -> str:
    return "ABCDEF"[target]


def assignments(every: Sequence[Assignment], best: Assignment) -> str:
    """Return all assignments, the cheapest first, and the cost that the solver found."""
    rows = [
        f'<tr class="{"sum" if index == 0 else ""}"><th scope="row">{index + 1}</th><td>{assignment.cost:.2f}</td>'
        + "".join(f"<td>{_object_name(target)} → {query + 1}</td>" for target, query in enumerate(assignment.queries))
        + "</tr>"
        for index, assignment in enumerate(every)
    ]
    columns = ["", "cost", *(f"object {_object_name(target)}" for target in range(len(best.queries)))]
    agrees = math.isclose(best.cost, every[0].cost, abs_tol=1e-9)
    caption = (
        f"{len(every)} assignments, the cheapest first. The Hungarian algorithm finds {best.cost:.2f}"
        f"{', the same cost' if agrees else ', another cost: please report it'}."
    )
    return f'<div class="many" tabindex="0">{table(caption, header_row(columns), rows)}</div>'


def times(measured: Sequence[SolverTimes]) -> str:
    """Plot the times of both solvers over N with a logarithmic axis."""
    width, height, left, right, bottom = 540, 240, 56, 90, 34
    curves = (
        ("curve1", "exhaustive", [point.exhaustive for point in measured]),
        ("curve2", "Hungarian", [point.hungarian for point in measured]),
    )
    values = [value for _, _, curve in curves for value in curve]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    xs = [left + (width - left - right) * index / (len(measured) - 1) for index in range(len(measured))]

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (high - math.log10(value)) / (high - low)

    parts = [
        f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:g}</text>'
        for power in range(low, high + 1)
    ]
    parts += [
        f'<text class="tick" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{point.objects}</text>'
        for x, point in zip(xs, measured, strict=True)
    ]
    for kind, name, curve in curves:
        points = " ".join(f"{x:.1f},{y(value):.1f}" for x, value in zip(xs, curve, strict=True))
        parts.append(
            f'<polyline class="{kind}" points="{points}"/>'
            f'<text class="{kind}" x="{xs[-1] + 6:.1f}" y="{y(curve[-1]) + 4:.1f}">{name}</text>'
        )
    last = measured[-1]
    caption = (
        f"Milliseconds to match N objects. For N = {last.objects}: {last.exhaustive:.3g} by exhaustive search, "
        f"{last.hungarian:.3g} by the Hungarian algorithm."
    )
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{caption}">{"".join(parts)}</svg>'
        f"<p>{caption} Exhaustive search needs N! steps, the Hungarian algorithm about N³.</p>"
    )


def toy(scene: Toy, queries_of: Sequence[Sequence[int]]) -> str:
    """Draw the toy image: objects in solid lines, queries dashed, and a line for each pair."""
    objects = cxcywh_to_xyxy(scene.targets.boxes) * _TOY_EDGE
    queries = cxcywh_to_xyxy(scene.predictions.boxes[0, 0]) * _TOY_EDGE
    owner = {query: target for target, own in enumerate(queries_of) for query in own}
    parts = [f'<rect class="page" width="{_TOY_EDGE}" height="{_TOY_EDGE}"/>']
    for query, box in enumerate(queries):
        name, target = f"q{query + 1}", owner.get(query)
        color = "currentColor" if target is None else css_color(LABELS[target])
        shape = _box(box, "unmatched" if target is None else "predicted", color) + _label(box, name, 14)
        parts.append(_movable(name, box / _TOY_EDGE, shape))
        if target is not None:
            (x0, y0), (x1, y1) = _center(objects[target]), _center(box)
            parts.append(f'<line style="stroke:{color}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    for target, box in enumerate(objects):
        name = _object_name(target)
        shape = _box(box, "truth", css_color(LABELS[target])) + _label(box, f"{name} {CLASSES[LABELS[target]]}", -5)
        parts.append(_movable(name, box / _TOY_EDGE, shape))
    return f'<svg class="toy" viewBox="0 0 {_TOY_EDGE} {_TOY_EDGE}" role="img" aria-label="Three objects and six queries">{"".join(parts)}</svg>'


def query_targets(queries_of: Sequence[Sequence[int]]) -> str:
    """Return the training target of each query, a class or no-object, and its predicted probabilities."""
    target_names = ["∅"] * len(PROBABILITIES)
    for target, own in enumerate(queries_of):
        for query in own:
            target_names[query] = f"{_object_name(target)} {CLASSES[LABELS[target]]}"
    rows = [
        f'<tr><th scope="row">q{query + 1}</th><td>{name}</td>{"".join(f"<td>{value:.2f}</td>" for value in predicted)}</tr>'
        for query, (name, predicted) in enumerate(zip(target_names, PROBABILITIES, strict=True))
    ]
    return table(
        "Training target and probabilities of each query", header_row(["query", "target", *CLASSES, "∅"]), rows
    )


def cost_matrix(costs: Costs, queries_of: Sequence[Sequence[int]]) -> str:
    """Return the cost matrix with the matched cells framed."""
    low, high = float(costs.min()), float(costs.max())
    rows = [
        f'<tr><th scope="row">{_object_name(target)}</th>'
        + "".join(
            f'<td class="{"matched" if query in queries_of[target] else ""}" style="--heat:{(value - low) / (high - low or 1):.3f}">{value:.2f}</td>'
            for query, value in enumerate(row)
        )
        + "</tr>"
        for target, row in enumerate(costs.tolist())
    ]
    header = header_row(["", *(f"q{query + 1}" for query in range(costs.shape[1]))])
    return table("Cost of each object with each query", header, rows, "heat")


def pair(shift: float, size: float, down: float = 0.0) -> str:
    """Draw the small and the large pair: intersection filled, union lighter, the rest of the hull hatched."""
    drawings = "".join(_pair(side, *box_pair(shift, size, side, down)) for side in SIDES)
    formulas = (
        "<p class='formula'>GIoU = |A∩B| / |A∪B| − |C∖(A∪B)| / |C|, where C is the smallest box around both (dotted, its empty part hatched). "
        "L1 = |x−x̂| + |y−ŷ| + |w−ŵ| + |h−ĥ|, in fractions of the image.</p>"
    )
    return f'<div class="pair">{drawings}</div>{formulas}'


def _pair(side: float, truth: Tensor, predicted: Tensor) -> str:
    edge = _PAIR_EDGE
    a, b = cxcywh_to_xyxy(truth) * edge, cxcywh_to_xyxy(predicted) * edge
    around, common = hull(a, b), intersection(a, b)
    filled = "".join(_box(box, kind, "none") for kind in ("blank", "union") for box in (a, b))
    if bool((common[2:] > common[:2]).all()):
        filled += _box(common, "intersection", "none")
    prediction = (
        f'<g class="drag" tabindex="0" data-sliders="lesson-shift lesson-down" data-unit="{edge * side:g}" role="img" '
        f'aria-label="The prediction">{_box(b, "predicted", css_color(1))}</g>'
    )
    area = areas(truth, predicted)
    overlap, empty = area.intersection / area.union, (area.hull - area.union) / area.hull
    equation = f"GIoU = {overlap:.2f} − {empty:.2f} = {overlap - empty:.2f}"
    # The drawing shows the image, and the boxes where they exceed it.
    low = torch.minimum(around[:2], torch.zeros(2)) - 4
    span = torch.maximum(around[2:], torch.full((2,), float(edge))) + 4 - low
    view_box = " ".join(f"{value:.0f}" for value in [*low.tolist(), *span.tolist()])
    return (
        f'<figure class="captioned"><svg class="toy" viewBox="{view_box}" role="img" '
        f'aria-label="A pair of boxes, the true one of side {side:g}: {equation}">{_HATCHING}<rect class="page" width="{edge}" height="{edge}"/>'
        f"{_box(around, 'hatched', 'none')}{_box(around, 'hull', 'currentColor')}{filled}{_box(a, 'truth', css_color(0))}{prediction}</svg>"
        f"<figcaption>{equation}</figcaption></figure>"
    )


def distance_table(rows_by_side: Sequence[dict[str, float]]) -> str:
    """Return the distances of both pairs."""
    names = ["L1", "IoU", "GIoU", "1 − GIoU", "1 − DIoU", "1 − CIoU"]
    rows = [
        f'<tr><th scope="row">side {row["side"]:g}</th>'
        + "".join(f"<td>{row[name]:.3f}</td>" for name in names)
        + "</tr>"
        for row in rows_by_side
    ]
    caption = "The same relative error, small and large: L1 differs, IoU and its variants don’t"
    return table(caption, header_row(["", *names]), rows)


def gradient_table(gradients: Sequence[tuple[float, str, list[float]]]) -> str:
    """Return the gradient of each distance by the predicted box."""
    rows = [
        f'<tr><th scope="row">{name}, side {side:g}</th>'
        + "".join(f"<td>{round(value, 2) + 0.0:.2f}</td>" for value in gradient)  # 0.0 removes the sign of -0.0
        + "</tr>"
        for side, name, gradient in gradients
    ]
    caption = "Gradients with respect to the predicted box: 0 for IoU if the boxes don’t touch"
    return table(caption, header_row(["", "x", "y", "width", "height"]), rows)


def curves() -> str:
    """Plot 1 - p, as in the cost, and -log p, as in the loss, over the probability p."""
    width, height, left, right, bottom = 420, 230, 40, 90, 30
    probabilities = [0.02 + 0.98 * step / 60 for step in range(61)]

    def x(p: float) -> float:
        return left + (width - left - right) * p

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (4 - value) / 5

    both = (("1 − p", [1 - p for p in probabilities]), ("−log p", [-math.log(p) for p in probabilities]))
    parts = []
    for number, (name, values) in enumerate(both, start=1):
        points = " ".join(f"{x(p):.1f},{y(min(4, value)):.1f}" for p, value in zip(probabilities, values, strict=True))
        parts.append(f'<polyline class="curve{number}" points="{points}"/>')
        parts.append(f'<text class="curve{number}" x="{width - 84}" y="{30 + 22 * number}">{name}</text>')
    parts += [
        f'<text class="tick" x="{x(p):.1f}" y="{height - 8}" text-anchor="middle">{p:g}</text>' for p in (0, 0.5, 1)
    ]
    parts += [
        f'<text class="tick" x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>'
        for value in range(5)
    ]
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="1 minus p is bounded, minus the logarithm of p is not">{"".join(parts)}</svg>'


def two_assignments(probabilities: Costs, linear: Assignment, logarithmic: Assignment) -> str:
    """Return a case in which probability and logarithm lead to different assignments."""
    rows = [
        f'<tr><th scope="row">object {_object_name(target)}</th>'
        + "".join(f"<td>{value:.2f}</td>" for value in row)
        + "</tr>"
        for target, row in enumerate(probabilities.tolist())
    ]

    def text(assignment: Assignment) -> str:
        return ", ".join(f"{_object_name(target)} → q{query + 1}" for target, query in enumerate(assignment.queries))

    explanation = (
        f"<p>By probability: {text(linear)}. By its logarithm: {text(logarithmic)}, because −log 0.05 = 3.00 is more than the cost of the other assignment. "
        "The matching cost uses the probability, so that it is of the size of the box terms and no single pair dominates.</p>"
    )
    return table("Probability of each object’s class", header_row(["", "q1", "q2"]), rows) + explanation


def _movable(name: str, box: Tensor, shape: str) -> str:
    """Return a box, xyxy in fractions, that the pointer and the arrow keys can move."""
    x, y = _center(box)
    return f'<g class="drag" tabindex="0" data-move="{name}" data-x="{x:.4f}" data-y="{y:.4f}" role="img" aria-label="{name}, movable">{shape}</g>'


def _center(box: Tensor) -> tuple[float, float]:
    x0, y0, x1, y1 = box.tolist()
    return (x0 + x1) / 2, (y0 + y1) / 2


def _box(box: Tensor, kind: str, color: str) -> str:
    x0, y0, x1, y1 = box.tolist()
    return f'<rect class="{kind}" style="stroke:{color}" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'


def _label(box: Tensor, text: str, below: float) -> str:
    return f'<text x="{float(box[0]) + 4:.1f}" y="{float(box[1]) + below:.1f}">{text}</text>'
