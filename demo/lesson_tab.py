"""The tab that teaches the method on toy data: each panel answers by the code that trains."""

from __future__ import annotations

from typing import Any

import gradio as gr
import lesson_view as view
import numpy as np
from controls import LIVE, weight_sliders
from lesson import (
    DIFFERENT,
    QUIZ,
    Toy,
    answered,
    by_probability_and_logarithm,
    distances,
    every_assignment,
    moved_boxes,
    optimal,
    slopes,
    solving_times,
    ways_of_matching,
)

_LARGEST = 1_000_000  # a cost
_WAYS = list(ways_of_matching(Toy().costs(1, 5, 2)))


def tab(page: gr.Blocks) -> None:
    """Build it, inside the page."""
    _assignments(page)
    _sets(page)
    _distances(page)
    _logarithm()
    _quiz()


def _assignments(page: gr.Blocks) -> None:
    gr.Markdown(
        "### 1. The best way to pair\nN objects, N queries, a cost for each pair. There are N! ways to pair them one to one; "
        "the **optimal bipartite matching** is the cheapest. Change a number, or N."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            size = gr.Slider(2, 6, value=3, step=1, label="N", elem_id="lesson-n")
            costs = gr.Dataframe(
                _random(3),
                headers=["q1", "q2", "q3"],
                datatype="number",
                interactive=True,
                label="Costs",
                elem_id="lesson-costs",
            )
        found = gr.HTML(elem_id="lesson-assignments")
    clock = gr.Button("Measure how long both take", size="sm", elem_id="lesson-measure")
    chart = gr.HTML(elem_id="lesson-times")
    size.change(
        lambda n: gr.update(value=_random(int(n)), headers=[f"q{one + 1}" for one in range(int(n))]),
        [size],
        [costs],
        **LIVE,
    )
    costs.change(tried, [costs], [found], **LIVE)
    page.load(tried, [costs], [found], **LIVE)
    clock.click(lambda: view.times(solving_times()), None, [chart], api_name=False)


def tried(table: Any) -> str:
    """Every assignment of a table of costs, or what is wrong with it."""
    try:
        costs = np.asarray(table, dtype=float)
    except ValueError:
        return "<p>Each cost is a number.</p>"
    if (
        costs.ndim != 2
        or costs.shape[0] != costs.shape[1]
        or not 2 <= len(costs) <= 6
        or not (np.abs(costs) <= _LARGEST).all()
    ):
        return f"<p>The table has as many rows as columns, 2 to 6, and a number in each cell, up to {_LARGEST:,}.</p>"
    return view.assignments(every_assignment(costs), optimal(costs))


def _random(size: int) -> list[list[float]]:
    costs: list[list[float]] = np.random.default_rng(size).integers(1, 10, (size, size)).astype(float).tolist()
    return costs


def _sets(page: gr.Blocks) -> None:
    gr.Markdown(
        "### 2. A set of answers, and the sum of costs\nSix queries, three objects: the truth is padded with “no object” (∅) to six. The matching σ̂ minimises "
        "the sum of λ-weighted costs. Try the ways of matching: only one to one keeps a second query from reporting the same object. "
        "**Drag any box**, or choose it with Tab and move it with the arrow keys."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            way = gr.Radio(_WAYS, value=_WAYS[0], label="Way of matching", elem_id="lesson-way")
            weights = weight_sliders("lesson")
            back = gr.Button("All boxes back to where they were", size="sm")
            moved = gr.Textbox("{}", elem_id="lesson-moved", elem_classes="unseen", container=False)
        picture = gr.HTML(elem_id="lesson-toy")
    matrix, taught = gr.HTML(elem_id="lesson-matrix"), gr.HTML(elem_id="lesson-taught")
    turned: dict[str, Any] = {
        "fn": matched,
        "inputs": [way, moved, *weights],
        "outputs": [picture, matrix, taught],
        **LIVE,
    }
    for knob in (way, moved, *weights):
        knob.change(**turned, trigger_mode="always_last")
    back.click(lambda: "{}", outputs=[moved], **LIVE)
    page.load(**turned)


def matched(way: str, moved: str, of_class: float, l1: float, giou: float) -> tuple[str, str, str]:
    """The toy image, its costs, and what each query is taught."""
    scene = Toy(moved_boxes(moved))
    costs = scene.costs(of_class, l1, giou)
    chosen = ways_of_matching(costs)[way]
    return view.toy(scene, chosen), view.heat(costs, chosen), view.padded(chosen)


def _distances(page: gr.Blocks) -> None:
    gr.Markdown(
        "### 3. How far two boxes are apart\nTwo pairs with the same relative error, one small and one large. L1 sees the large one; IoU and its kin see both alike. "
        "Drag the dashed prediction until the boxes don’t touch: IoU has nothing to say any more, GIoU has."
    )
    with gr.Row():
        shift = gr.Slider(-2, 2, value=0.4, step=0.05, label="Shift, in widths of the box", elem_id="lesson-shift")
        down = gr.Slider(-1, 1, value=0, step=0.05, label="Shift down, in heights", elem_id="lesson-down")
        size = gr.Slider(0.2, 2, value=1.2, step=0.05, label="Size, of the box’s", elem_id="lesson-size")
    drawing, told = gr.HTML(elem_id="lesson-pair"), gr.HTML(elem_id="lesson-distances")
    pulls = gr.HTML(elem_id="lesson-gradients")
    moved: dict[str, Any] = {
        "fn": lambda by, to, low: (
            view.pair(by, to, low),
            view.distances(distances(by, to, low)),
            view.gradients(slopes(by, to, low)),
        ),
        "inputs": [shift, size, down],
        "outputs": [drawing, told, pulls],
        **LIVE,
    }
    for knob in (shift, size, down):
        knob.change(**moved, trigger_mode="always_last")
    page.load(**moved)


def _logarithm() -> None:
    gr.Markdown("### 4. A probability in the cost, its logarithm in the loss")
    with gr.Row():
        with gr.Column(min_width=300):
            gr.HTML(view.curves())
        with gr.Column(min_width=300):
            gr.HTML(view.different(DIFFERENT, *by_probability_and_logarithm()))


def _quiz() -> None:
    gr.Markdown("### 5. Four questions")
    for place, question in enumerate(QUIZ):
        chosen = gr.Radio(list(question.answers), label=question.text, elem_id=f"quiz-{place}")
        said = gr.Markdown(elem_id=f"answer-{place}")
        chosen.change(lambda one, place=place: answered(place, one), [chosen], [said], **LIVE)
