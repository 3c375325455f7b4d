"""The lesson drawn: permutations, a curve of measured times, the toy image, pairs of boxes, and two curves of probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from lesson import CLASSES, LABELS, SAID, SIDES, Assignment, Costs, Toy, areas, hull, overlap, pair_of
from markup import css_color, head, table

from detr_ft.boxes import cxcywh_to_xyxy

_COLOURS = [css_color(label) for label in range(8)]


def assignments(every: Sequence[Assignment], best: Assignment) -> str:
    """All permutations, the cheapest first and marked, and whether the solver found it."""
    rows = [
        f'<tr class="{"sum" if place == 0 else ""}"><th scope="row">{place + 1}</th><td>{one.cost:.2f}</td>'
        + "".join(f"<td>{chr(65 + target)} → {query + 1}</td>" for target, query in enumerate(one.queries))
        + "</tr>"
        for place, one in enumerate(every)
    ]
    columns = ["", "cost", *(f"object {chr(65 + target)}" for target in range(len(best.queries)))]
    agrees = math.isclose(best.cost, every[0].cost, abs_tol=1e-9)
    words = (
        f"{len(every)} permutations tried, the cheapest first. The Hungarian algorithm answers "
        f"{best.cost:.2f}{', the same' if agrees else ', which is another: please report it'}."
    )
    return f'<div class="many" tabindex="0">{table(words, head(columns), rows)}</div>'


def times(measured: Sequence[tuple[int, float, float]]) -> str:
    """Both solvers' times over N, on a logarithmic axis, as they were measured on this machine."""
    width, height, left, bottom = 540, 240, 56, 34
    values = [value for _, *both in measured for value in both]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    across = [left + (width - left - 90) * place / (len(measured) - 1) for place in range(len(measured))]

    def y(value: float) -> float:
        return 10 + (height - bottom - 10) * (high - math.log10(value)) / (high - low)

    lines = "".join(
        f'<line class="grid" x1="{left}" x2="{width - 90}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}"/>'
        f'<text class="tick" x="{left - 6}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:g}</text>'
        for power in range(low, high + 1)
    )
    lines += "".join(
        f'<text class="tick" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{size}</text>'
        for x, (size, *_) in zip(across, measured, strict=True)
    )
    for which, name in ((1, "all N!"), (2, "Hungarian")):
        points = " ".join(f"{x:.1f},{y(one[which]):.1f}" for x, one in zip(across, measured, strict=True))
        lines += f'<polyline class="curve{which}" points="{points}"/><text class="curve{which}" x="{across[-1] + 6:.1f}" y="{y(measured[-1][which]) + 4:.1f}">{name}</text>'
    last = measured[-1]
    told = f"Milliseconds to match N objects: at {last[0]}, {last[1]:.3g} by trying all and {last[2]:.3g} by the Hungarian algorithm"
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{told}">{lines}</svg><p>{told}; N! grows past every power of N, the algorithm’s work like N³.</p>'


def toy(scene: Toy, chosen: Sequence[Sequence[int]]) -> str:
    """The toy image: objects in full lines, queries dashed, and a line for each pair."""
    edge = 420
    objects = cxcywh_to_xyxy(scene.targets.boxes) * edge
    queries = cxcywh_to_xyxy(scene.predictions.boxes[0, 0]) * edge
    owner = {query: target for target, own in enumerate(chosen) for query in own}
    parts = [f'<rect class="page" width="{edge}" height="{edge}"/>']
    for query, box in enumerate(queries):
        colour = _COLOURS[LABELS[owner[query]]] if query in owner else "currentColor"
        held = _box(box, "said" if query in owner else "free", colour) + _label(box, f"q{query + 1}", 14)
        parts.append(_moved(f"q{query + 1}", queries[query] / edge, held))
        if query in owner:
            own = objects[owner[query]]
            parts.append(
                f'<line style="stroke:{colour}" x1="{float(own[0] + own[2]) / 2:.1f}" y1="{float(own[1] + own[3]) / 2:.1f}" '
                f'x2="{float(box[0] + box[2]) / 2:.1f}" y2="{float(box[1] + box[3]) / 2:.1f}"/>'
            )
    for target, box in enumerate(objects):
        name = chr(65 + target)
        held = _box(box, "true", _COLOURS[LABELS[target]]) + _label(box, f"{name} {CLASSES[LABELS[target]]}", -5)
        parts.append(_moved(name, box / edge, held))
    return f'<svg class="toy" viewBox="0 0 {edge} {edge}" role="img" aria-label="Three objects and six queries">{"".join(parts)}</svg>'


def padded(chosen: Sequence[Sequence[int]]) -> str:
    """The truth as the model is taught it, query by query: an object's class, or no object."""
    owner = {query: target for target, own in enumerate(chosen) for query in own}
    rows = [
        f'<tr><th scope="row">q{query + 1}</th><td>{"∅" if query not in owner else chr(65 + owner[query]) + " " + CLASSES[LABELS[owner[query]]]}</td>'
        + "".join(f"<td>{value:.2f}</td>" for value in said)
        + "</tr>"
        for query, said in enumerate(SAID)
    ]
    return table("What each query is taught, and what it says now", head(["query", "taught", *CLASSES, "∅"]), rows)


def heat(costs: Costs, chosen: Sequence[Sequence[int]]) -> str:
    """The cost matrix with the chosen cells framed."""
    low, high = float(costs.min()), float(costs.max())
    rows = [
        f'<tr><th scope="row">{chr(65 + target)}</th>'
        + "".join(
            f'<td class="{"taken" if query in chosen[target] else ""}" style="--heat:{(value - low) / (high - low or 1):.3f}">{value:.2f}</td>'
            for query, value in enumerate(row)
        )
        + "</tr>"
        for target, row in enumerate(costs.tolist())
    ]
    return table(
        "Cost of each object with each query",
        head(["", *(f"q{query + 1}" for query in range(costs.shape[1]))]),
        rows,
        "heat",
    )


def pair(shift: float, size: float, down: float = 0.0) -> str:
    """The small and the large pair: what both share filled, what belongs to one lighter, the rest of the box around both hatched."""
    drawings = "".join(_pair(side, *pair_of(shift, size, side, down)) for side in SIDES)
    words = (
        "<p class='formula'>GIoU = |A∩B| / |A∪B| − |C∖(A∪B)| / |C|, where C is the smallest box around both (dotted, its empty part hatched). "
        "L1 = |x−x̂| + |y−ŷ| + |w−ŵ| + |h−ĥ|, in fractions of the image.</p>"
    )
    return f'<div class="pair">{drawings}</div>{words}'


def _pair(side: float, true: torch.Tensor, said: torch.Tensor) -> str:
    edge = 300
    a, b = (cxcywh_to_xyxy(one) * edge for one in (true, said))
    around, both = hull(a, b), overlap(a, b)
    shared = _box(both, "shared", "none") if bool((both[2:] > both[:2]).all()) else ""
    empty = '<defs><pattern id="empty" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><line class="hatch" y2="7"/></pattern></defs>'
    covered = "".join(_box(one, kind, "none") for kind in ("blank", "covered") for one in (a, b))
    held = _box(b, "said", _COLOURS[1])
    dragged = f'<g class="drag" tabindex="0" data-sliders="lesson-shift lesson-down" data-unit="{edge * side:g}" role="img" aria-label="The prediction">{held}</g>'
    told = areas(true, said)
    numbers = f"GIoU = {told.shared / told.union:.2f} − {(told.around - told.union) / told.around:.2f} = {told.shared / told.union - (told.around - told.union) / told.around:.2f}"
    low = torch.minimum(around[:2], torch.zeros(2)) - 4
    span = torch.maximum(around[2:], torch.full((2,), float(edge))) + 4 - low
    return (
        f'<figure class="told"><svg class="toy" viewBox="{float(low[0]):.0f} {float(low[1]):.0f} {float(span[0]):.0f} {float(span[1]):.0f}" role="img" '
        f'aria-label="A pair of boxes, the true one of side {side:g}: {numbers}">{empty}<rect class="page" width="{edge}" height="{edge}"/>'
        f"{_box(around, 'hatched', 'none')}{_box(around, 'around', 'currentColor')}{covered}{shared}{_box(a, 'true', _COLOURS[0])}{dragged}</svg>"
        f"<figcaption>{numbers}</figcaption></figure>"
    )


def distances(told: Sequence[dict[str, float]]) -> str:
    """The distances of both pairs."""
    names = ["L1", "IoU", "GIoU", "1 − GIoU", "1 − DIoU", "1 − CIoU"]
    rows = [
        f'<tr><th scope="row">side {row["side"]:g}</th>'
        + "".join(f"<td>{row[name]:.3f}</td>" for name in names)
        + "</tr>"
        for row in told
    ]
    caption = "The same relative error, small and large: L1 differs, IoU and its kin don’t"
    return table(caption, head(["", *names]), rows)


def gradients(told: Sequence[tuple[float, str, list[float]]]) -> str:
    """How hard each distance pulls on each number of the predicted box."""
    rows = [
        f'<tr><th scope="row">{name}, side {side:g}</th>'
        + "".join(f"<td>{value:.2f}</td>" for value in slope)
        + "</tr>"
        for side, name, slope in told
    ]
    caption = "Their gradients by the predicted box: where boxes don’t touch, IoU’s is 0"
    return table(caption, head(["", "x", "y", "width", "height"]), rows)


def curves() -> str:
    """Minus the probability, as in the cost, and minus its logarithm, as in the loss."""
    width, height, left, bottom = 420, 230, 40, 30
    steps = [0.02 + 0.98 * step / 60 for step in range(61)]

    def at(value: float, y: float) -> str:
        return f"{left + (width - left - 90) * value:.1f},{10 + (height - bottom - 10) * (4 - y) / 5:.1f}"

    both = ((1, "1 − p", [1 - p for p in steps]), (2, "−log p", [-math.log(p) for p in steps]))
    parts = ""
    for which, name, values in both:
        parts += f'<polyline class="curve{which}" points="{" ".join(at(p, min(4, y)) for p, y in zip(steps, values, strict=True))}"/>'
        parts += f'<text class="curve{which}" x="{width - 84}" y="{30 + 22 * which}">{name}</text>'
    parts += "".join(
        f'<text class="tick" x="{left + (width - left - 90) * p:.1f}" y="{height - 8}" text-anchor="middle">{p:g}</text>'
        for p in (0, 0.5, 1)
    )
    parts += "".join(
        f'<text class="tick" x="{left - 6}" y="{10 + (height - bottom - 10) * (4 - y) / 5 + 4:.1f}" text-anchor="end">{y}</text>'
        for y in range(5)
    )
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="1 minus p is bounded, minus the logarithm of p is not">{parts}</svg>'


def different(probabilities: Costs, linear: Assignment, logarithmic: Assignment) -> str:
    """The case in which the two choose differently."""
    rows = [
        f'<tr><th scope="row">object {chr(65 + target)}</th>'
        + "".join(f"<td>{value:.2f}</td>" for value in row)
        + "</tr>"
        for target, row in enumerate(probabilities.tolist())
    ]

    def words(one: Assignment) -> str:
        return ", ".join(f"{chr(65 + target)} → q{query + 1}" for target, query in enumerate(one.queries))

    told = (
        f"<p>By the probability: {escape(words(linear))}. By its logarithm: {escape(words(logarithmic))}, since log 0.05 is a disaster. "
        "The cost takes the probability, so that it is of the size of the box terms and one hopeless query doesn’t decide for all.</p>"
    )
    return table("Probability of each object’s class", head(["", "q1", "q2"]), rows) + told


def _moved(name: str, box: torch.Tensor, held: str) -> str:
    """A box xyxy, in fractions, that can be dragged, and moved by arrow keys."""
    x, y = (box[:2] + box[2:]).tolist()
    return f'<g class="drag" tabindex="0" data-move="{name}" data-x="{x / 2:.4f}" data-y="{y / 2:.4f}" role="img" aria-label="{name}, to be moved">{held}</g>'


def _box(box: torch.Tensor, kind: str, colour: str) -> str:
    x0, y0, x1, y1 = (float(side) for side in box)
    return f'<rect class="{kind}" style="stroke:{colour}" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'


def _label(box: torch.Tensor, words: str, below: float) -> str:
    return f'<text x="{float(box[0]) + 4:.1f}" y="{float(box[1]) + below:.1f}">{escape(words)}</text>'
