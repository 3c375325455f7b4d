"""HTML of a matching: image with pairs, cost matrix, queries by layer, and parts of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from markup import css_color, header_row, rectangle, svg_image, table
from matching import LOSS_NAMES, TERM_NAMES, MatchedScene
from torch import Tensor

from detr_ft.data.box_frame import to_pixels
from detr_ft.utils.formatting import percent

TOTAL = "total"  # the choice of a cost that shows the sum of all terms
_MIN_MATRIX_COLUMNS = 10
_NO_OBJECTS = "<p>No objects: every query is trained to predict “no object”.</p>"
_LEGEND = (("truth", "object"), ("predicted", "its query"), ("unmatched", "unmatched query"))


def image(matched: MatchedScene, layer: int, names: Sequence[str]) -> str:
    """Draw objects in solid lines, their queries dashed and connected by a line, and other queries faint."""
    scene = matched.scene
    scale = torch.tensor([*scene.display_size, *scene.display_size]) / scene.sides
    boxes = to_pixels(scene.predictions.boxes[layer - 1, 0], scene.size) * scale
    pairs = matched.layer(layer).pairs
    queries = {pair.query for pair in pairs}
    shapes = [
        rectangle(boxes[query], "unmatched", f"query {query}, unmatched")
        for query in range(len(boxes))
        if query not in queries
    ]
    for target, truth in enumerate(scene.boxes * scale):
        own = [pair for pair in pairs if pair.target == target]
        name = names[int(scene.labels[target])]
        shapes.append(
            f'<g data-object="{target}" tabindex="0" style="--own:{_color(matched, target)}">'
            + rectangle(truth, "truth", f"object {target + 1}: {name}")
            + "".join(_partner(truth, boxes[pair.query], f"query {pair.query}, cost {pair.cost:.2f}") for pair in own)
            + f'<text x="{float(truth[0]) + 4:.1f}" y="{max(14.0, float(truth[1]) - 5):.1f}">{target + 1} '
            + f"{escape(name)} ← {', '.join(f'q{pair.query}' for pair in own) or 'no query'}</text></g>"
        )
    description = f"{len(scene.labels)} objects and their matched queries at decoder layer {layer}"
    return svg_image(scene.data_uri, scene.display_size, shapes, description) + _legend()


def matrix(matched: MatchedScene, layer: int, term: str, names: Sequence[str]) -> str:
    """Return the costs, objects by queries: matched queries first, then the cheapest.

    Matched cells are framed.
    """
    explanation = matched.layer(layer)
    values = explanation.costs if term == TOTAL else explanation.terms[_term_key(matched, term)]
    if not len(values):
        return _NO_OBJECTS
    pairs = {(pair.target, pair.query) for pair in explanation.pairs}
    first = list(dict.fromkeys(query for _, query in sorted(pairs)))
    rest = [query for query in explanation.costs.amin(0).argsort().tolist() if query not in first]
    columns = (first + rest)[: max(_MIN_MATRIX_COLUMNS, len(first))]
    low, high = float(values.min()), float(values.max())
    header = "".join(f'<th scope="col">q{query}</th>' for query in columns)
    rows = []
    for target, costs in enumerate(values.tolist()):
        cells = "".join(
            f'<td class="{"matched" if (target, query) in pairs else ""}" style="--heat:{_heat(costs[query], low, high):.3f}">'
            f"{costs[query]:.2f}</td>"
            for query in columns
        )
        rows.append(_object_row(matched, target, names, cells))
    caption = f"{'Cost' if term == TOTAL else f'{term} cost, weighted,'} of each object with each query"
    hidden = values.shape[1] - len(columns)
    if hidden:
        caption += f"; {hidden} more expensive queries are not shown"
    return table(caption, f"<tr><td></td>{header}</tr>", rows, "heat")


def pairs(matched: MatchedScene, layer: int, names: Sequence[str]) -> str:
    """Return the pairs with their costs by term, the alternative query and the regret."""
    explanation, overlaps = matched.layer(layer), matched.overlaps(layer)
    probabilities = matched.probabilities(layer)
    if not explanation.pairs:
        return _NO_OBJECTS
    terms = [TERM_NAMES.get(name, name) for name in explanation.terms]
    rows = []
    for pair in sorted(explanation.pairs, key=lambda pair: (pair.target, pair.cost)):
        probability = float(probabilities[pair.query, int(matched.scene.labels[pair.target])])
        alternative = "none" if pair.instead is None else f"q{pair.instead}"
        regret = "–" if math.isinf(pair.regret) else f"{pair.regret:.2f}"
        cells = [
            f"q{pair.query}", f"{probability:.2f}", f"{float(overlaps[pair.target, pair.query]):.2f}",
            *(f"{value:.2f}" for value in pair.terms.values()), f"{pair.cost:.2f}", alternative, regret,
        ]  # fmt: skip
        rows.append(_object_row(matched, pair.target, names, "".join(f"<td>{cell}</td>" for cell in cells)))
    caption = "Matched pairs. Regret: the additional cost of the best matching without this pair; near 0 the matching is nearly undecided."
    header = header_row(["object", "query", "probability", "IoU", *terms, "cost", "alternative", "regret"])
    return table(caption, header, rows)


def layers(matched: MatchedScene, names: Sequence[str]) -> str:
    """Return the query of each object at every decoder layer; changes are highlighted and counted."""
    rows = []
    for target, queries in enumerate(matched.explanation.partners):
        cells = "".join(
            f'<td class="{"changed" if index and query != queries[index - 1] else ""}">{"–" if query is None else f"q{query}"}</td>'
            for index, query in enumerate(queries)
        )
        rows.append(_object_row(matched, target, names, cells))
    if not rows:
        return _NO_OBJECTS
    changes = "".join(f"<td>{count}</td>" for count in matched.explanation.changes)
    rows.append(f'<tr class="sum"><th scope="row">changes</th><td></td>{changes}</tr>')
    header = header_row(["object", *_layer_titles(matched)])
    return table("The query of each object at every decoder layer", header, rows)


def loss(matched: MatchedScene) -> str:
    """Return the weighted loss of the image by term and layer, split into matched pairs and no-object."""
    losses = matched.losses()
    largest = max([value for layers in losses.values() for parts in layers for value in parts] + [1e-9])
    rows = []
    for name, parts_by_layer in losses.items():
        for part, title in enumerate(("matched pairs", "no object")):
            values = [parts[part] for parts in parts_by_layer]
            if title == "no object" and not any(values):
                continue
            cells = "".join(
                f'<td><span class="bar" style="--size:{value / largest:.3f}"></span>{value:.3f}</td>'
                for value in values
            )
            rows.append(
                f'<tr><th scope="row">{escape(LOSS_NAMES.get(name, name))}, {title}</th>{cells}<td>{sum(values):.3f}</td></tr>'
            )
    sums = [sum(sum(parts[layer]) for parts in losses.values()) for layer in range(matched.num_layers)]
    cells = "".join(f"<td>{value:.3f}</td>" for value in [*sums, sum(sums)])
    rows.append(f'<tr class="sum"><th scope="row">Hungarian loss</th>{cells}</tr>')
    return table("The loss of this image, weighted", header_row(["loss", *_layer_titles(matched), "sum"]), rows)


def padding(matched: MatchedScene, layer: int) -> str:
    """Return the padded ground truth, and the part of no-object in the class loss."""
    objects = len(matched.scene.boxes)
    used = len({pair.query for pair in matched.layer(layer).pairs})
    queries = matched.scene.predictions.num_queries
    cells = "".join(f'<i class="{"object" if index < used else "none"}"></i>' for index in range(queries))
    of_objects = f"{objects} object{'s' if objects != 1 else ''}"
    if used > objects:
        of_objects += f", matched with {used} queries,"
    return (
        f'<div class="padded" role="img" aria-label="{used} queries with an object and {queries - used} without">{cells}</div>'
        f"<p>The model predicts {queries} boxes, so the ground truth is padded to {queries}: {of_objects} and {queries - used} × “no object” (∅)."
        f"{_no_object_fraction(matched, layer) if 'loss_ce' in matched.losses() else ''}</p>"
    )


def _no_object_fraction(matched: MatchedScene, layer: int) -> str:
    """State the part of no-object in the cross-entropy of a layer, at its weight and at a weight of 1."""
    of_pairs, of_no_object = matched.losses()["loss_ce"][layer - 1]
    weight = matched.settings.eos_coef
    weighted, full = (
        part / (of_pairs + part) if of_pairs + part > 0 else 0.0 for part in (of_no_object, of_no_object / weight)
    )
    return f" At weight {weight:g}, no-object makes up {percent(weighted)} of this layer's class loss; at weight 1 it would be {percent(full)}."


def _term_key(matched: MatchedScene, name: str) -> str:
    return next(key for key in matched.layer(1).terms if TERM_NAMES.get(key, key) == name)


def _layer_titles(matched: MatchedScene) -> list[str]:
    return [f"layer {number}" for number in range(1, matched.num_layers + 1)]


def _object_row(matched: MatchedScene, target: int, names: Sequence[str], cells: str) -> str:
    name = escape(names[int(matched.scene.labels[target])])
    dot = f'<span class="dot" style="background:{_color(matched, target)}"></span>'
    return f'<tr data-object="{target}" tabindex="0"><th scope="row">{dot}{target + 1} {name}</th>{cells}</tr>'


def _color(matched: MatchedScene, target: int) -> str:
    return css_color(int(matched.scene.labels[target]))


def _partner(truth: Tensor, predicted: Tensor, title: str) -> str:
    """Draw the box of a query and a line from the center of its object."""
    (x0, y0), (x1, y1) = _center(truth), _center(predicted)
    line = f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
    return rectangle(predicted, "predicted", title) + line


def _center(box: Tensor) -> tuple[float, float]:
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def _heat(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0


def _legend() -> str:
    entries = "".join(f'<span><i class="{kind}"></i>{text}</span>' for kind, text in _LEGEND)
    return f'<p class="legend">{entries}</p>'
