"""The matching drawn: the picture with its pairs, the cost matrix as a heat map, layer by layer, and the loss taken apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from markup import css_color, head, rectangle, scene, table
from matching import LOSSES, TERMS, Solved
from torch import Tensor

from detr_ft.data.box_frame import to_pixels

_COLUMNS = 10  # of the cost matrix


def picture(solved: Solved, layer: int, names: Sequence[str]) -> str:
    """Truth in full lines, the queries that took it dashed, a line between the two, and the other queries faint."""
    seen = solved.scene
    scale = torch.tensor([*seen.shape, *seen.shape]) / seen.sides
    boxes = to_pixels(seen.predictions.boxes[layer - 1, 0], seen.size) * scale
    pairs = solved.layer(layer).pairs
    taken = {pair.query for pair in pairs}
    parts = [
        rectangle(boxes[query], "free", f"query {query}, no pair") for query in range(len(boxes)) if query not in taken
    ]
    for target, true in enumerate(seen.boxes * scale):
        own = [pair for pair in pairs if pair.target == target]
        parts.append(
            f'<g data-object="{target}" tabindex="0" style="--own:{_colour(solved, target)}">'
            + rectangle(true, "true", f"object {target + 1}: {names[int(seen.labels[target])]}")
            + "".join(_partner(true, boxes[pair.query], f"query {pair.query}, cost {pair.cost:.2f}") for pair in own)
            + f'<text x="{float(true[0]) + 4:.1f}" y="{max(14.0, float(true[1]) - 5):.1f}">{target + 1} '
            + f"{escape(names[int(seen.labels[target])])} ← {', '.join(f'q{pair.query}' for pair in own) or 'no query'}</text></g>"
        )
    told = f"{len(seen.labels)} objects and the queries they are matched with at decoder layer {layer}"
    return scene(seen.address, seen.shape, parts, told) + _legend()


def matrix(solved: Solved, layer: int, term: str, names: Sequence[str]) -> str:
    """Costs, objects by queries: those that were taken first, then the cheapest; the taken cells are framed."""
    told = solved.layer(layer)
    values = told.costs if term == "whole" else told.terms[_term(solved, term)]
    if not len(values):
        return _nothing()
    taken = {(pair.target, pair.query) for pair in told.pairs}
    first = list(dict.fromkeys(query for _, query in sorted(taken)))
    rest = [query for query in told.costs.amin(0).argsort().tolist() if query not in first]
    shown = (first + rest)[: max(_COLUMNS, len(first))]
    low, high = float(values.min()), float(values.max())
    columns = "".join(f'<th scope="col">q{query}</th>' for query in shown)
    rows = []
    for target in range(len(values)):
        cells = "".join(
            f'<td class="{"taken" if (target, query) in taken else ""}" style="--heat:{_share(float(values[target, query]), low, high):.3f}">'
            f"{float(values[target, query]):.2f}</td>"
            for query in shown
        )
        rows.append(
            f'<tr data-object="{target}" tabindex="0"><th scope="row">{_object(solved, target, names)}</th>{cells}</tr>'
        )
    more = len(values[0]) - len(shown)
    caption = f"{'Cost' if term == 'whole' else term + ' cost, weighted'} of each object with each query" + (
        f"; {more} dearer queries are not shown" if more else ""
    )
    return table(caption, f"<tr><td></td>{columns}</tr>", rows, "heat")


def pairs(solved: Solved, layer: int, names: Sequence[str]) -> str:
    """Why each object has its query: costs by term, and how much dearer the matching without this pair would be."""
    told, overlaps, said = solved.layer(layer), solved.overlaps(layer), solved.probabilities(layer)
    if not told.pairs:
        return _nothing()
    titles = [
        "object",
        "query",
        "probability",
        "IoU",
        *(TERMS.get(name, name) for name in told.terms),
        "cost",
        "instead",
        "regret",
    ]
    rows = []
    for pair in sorted(told.pairs, key=lambda one: (one.target, one.cost)):
        probability = float(said[pair.query, int(solved.scene.labels[pair.target])])
        instead = "none" if pair.instead is None else f"q{pair.instead}"
        regret = "–" if math.isinf(pair.regret) else f"{pair.regret:.2f}"
        cells = [
            f"q{pair.query}", f"{probability:.2f}", f"{float(overlaps[pair.target, pair.query]):.2f}",
            *(f"{value:.2f}" for value in pair.terms.values()), f"{pair.cost:.2f}", instead, regret,
        ]  # fmt: skip
        rows.append(
            f'<tr data-object="{pair.target}" tabindex="0"><th scope="row">{_object(solved, pair.target, names)}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    caption = "Who took what, and why. Regret: how much dearer the best matching without this pair is; near 0 it was a toss-up."
    return table(caption, head(titles), rows)


def layers(solved: Solved, names: Sequence[str]) -> str:
    """Each object's query at every decoder layer; where it changes, the cell is marked."""
    rows = []
    for target, queries in enumerate(solved.told.partners):
        cells = "".join(
            f'<td class="{"changed" if place and query != queries[place - 1] else ""}">{"–" if query is None else f"q{query}"}</td>'
            for place, query in enumerate(queries)
        )
        rows.append(
            f'<tr data-object="{target}" tabindex="0"><th scope="row">{_object(solved, target, names)}</th>{cells}</tr>'
        )
    if not rows:
        return _nothing()
    changes = ["", *(str(one) for one in solved.told.changes)]
    rows.append(
        '<tr class="sum"><th scope="row">changed</th>' + "".join(f"<td>{one}</td>" for one in changes) + "</tr>"
    )
    titles = head(["object", *(f"layer {number + 1}" for number in range(len(solved.told.layers)))])
    return table("The query of each object at every decoder layer", titles, rows)


def loss(solved: Solved) -> str:
    """The Hungarian loss of this image, by term and layer: what matched pairs add, and what no-object does."""
    parts_of = solved.losses()
    titles = head(["loss", *(f"layer {number + 1}" for number in range(len(solved.told.layers))), "sum"])
    most = max([value for parts in parts_of.values() for pair in parts for value in pair] + [1e-9])
    rows = []
    for name, parts in parts_of.items():
        for which, title in enumerate(("matched pairs", "no object")):
            values = [pair[which] for pair in parts]
            if which and not any(values):
                continue
            cells = "".join(
                f'<td><span class="bar" style="--size:{value / most:.3f}"></span>{value:.3f}</td>' for value in values
            )
            rows.append(
                f'<tr><th scope="row">{escape(LOSSES.get(name, name))}, {title}</th>{cells}<td>{sum(values):.3f}</td></tr>'
            )
    sums = [sum(sum(pairs[place]) for pairs in parts_of.values()) for place in range(len(solved.told.layers))]
    total = "".join(f"<td>{value:.3f}</td>" for value in [*sums, sum(sums)])
    rows.append(f'<tr class="sum"><th scope="row">Hungarian loss</th>{total}</tr>')
    return table("The loss of this image, weighted", titles, rows)


def padding(solved: Solved, layer: int) -> str:
    """The truth padded to as many places as there are queries, and how much of the class loss no-object has."""
    objects = len(solved.scene.boxes)
    taken = len({pair.query for pair in solved.layer(layer).pairs})
    queries = solved.scene.predictions.num_queries
    cells = "".join(f'<i class="{"object" if place < taken else "none"}"></i>' for place in range(queries))
    told = _weighed(solved, layer) if "loss_ce" in solved.losses() else ""
    return (
        f'<div class="padded" role="img" aria-label="{taken} queries with an object and {queries - taken} with none">{cells}</div>'
        f"<p>The model always gives {queries} answers, so the truth is padded to {queries}: {objects} "
        f"object{'s' if objects != 1 else ''}{f', each for several queries, {taken} in all,' if taken > objects else ''} and {queries - taken} times “no object” (∅).{told}</p>"
    )


def _weighed(solved: Solved, layer: int) -> str:
    """What no-object makes of the cross-entropy at a layer, as it is weighed and as it would be with a weight of 1."""
    matched, free = solved.losses()["loss_ce"][layer - 1]
    weight = solved.knobs.eos_coef
    share, full = (part / (matched + part) if matched + part > 0 else 0.0 for part in (free, free / weight))
    return f" With no-object weighing {weight:g}, it has {share:.0%} of this layer's class loss. With a weight of 1 it would be {full:.0%}."


def _term(solved: Solved, shown: str) -> str:
    return next(name for name in solved.layer(1).terms if TERMS.get(name, name) == shown)


def _object(solved: Solved, target: int, names: Sequence[str]) -> str:
    name = escape(names[int(solved.scene.labels[target])])
    return f'<span class="dot" style="background:{_colour(solved, target)}"></span>{target + 1} {name}'


def _colour(solved: Solved, target: int) -> str:
    return css_color(int(solved.scene.labels[target]))


def _partner(true: Tensor, said: Tensor, title: str) -> str:
    """A query's box and a line to it from the object's."""
    (x0, y0), (x1, y1) = _centre(true), _centre(said)
    line = f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'
    return rectangle(said, "said", title) + line


def _centre(box: Tensor) -> tuple[float, float]:
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0


def _legend() -> str:
    keys = (("true", "an object"), ("said", "the query that took it"), ("free", "a query without a pair"))
    return (
        '<p class="legend">' + "".join(f'<span><i class="{kind}"></i>{words}</span>' for kind, words in keys) + "</p>"
    )


def _nothing() -> str:
    return "<p>There is no object here: every query is to say “no object”.</p>"
