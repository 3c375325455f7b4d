"""The tab Lesson: the method on toy data, computed by the library."""

from __future__ import annotations

from typing import Any

import gradio as gr
import lesson_view as view
import numpy as np
from controls import LIVE_EVENT, weight_sliders
from lesson import (
    PAIR_PROBABILITIES,
    QUIZ,
    Toy,
    all_assignments,
    by_probability_and_logarithm,
    distances,
    gradients,
    match_by_each_method,
    measure_solvers,
    optimal_assignment,
    parse_centers,
    review_answer,
)

_MAX_COST = 1_000_000
_MIN_OBJECTS, _MAX_OBJECTS = 2, 6
_METHODS = list(match_by_each_method(Toy().costs(1, 5, 2)))


def build(page: gr.Blocks) -> None:
    """Build the tab inside a page."""
    _assignments(page)
    _set_prediction(page)
    _distances(page)
    _logarithm()
    _quiz()


def _assignments(page: gr.Blocks) -> None:
    gr.Markdown(
        "### 1. Optimal matching\nN objects, N queries, and a cost for each pair. There are N! one-to-one assignments; the cheapest "
        "is the **optimal bipartite matching**. Change N or a cost."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            size = gr.Slider(_MIN_OBJECTS, _MAX_OBJECTS, value=3, step=1, label="N", elem_id="lesson-n")
            costs = gr.Dataframe(
                _random_costs(3),
                headers=_query_names(3),
                datatype="number",
                interactive=True,
                label="Costs",
                elem_id="lesson-costs",
            )
        assignments = gr.HTML(elem_id="lesson-assignments")
    measure = gr.Button("Measure the time of both algorithms", size="sm", elem_id="lesson-measure")
    chart = gr.HTML(elem_id="lesson-times")
    size.change(
        lambda n: gr.update(value=_random_costs(int(n)), headers=_query_names(int(n))), [size], [costs], **LIVE_EVENT
    )
    costs.change(assignments_html, [costs], [assignments], **LIVE_EVENT)
    page.load(assignments_html, [costs], [assignments], **LIVE_EVENT)
    measure.click(lambda: view.times(measure_solvers()), None, [chart], api_name=False)


def assignments_html(table: Any) -> str:
    """Return all assignments of a table of costs, or a message about an invalid table."""
    try:
        costs = np.asarray(table, dtype=float)
    except ValueError:
        return "<p>Each cost must be a number.</p>"
    is_square = costs.ndim == 2 and costs.shape[0] == costs.shape[1]
    if not is_square or not _MIN_OBJECTS <= len(costs) <= _MAX_OBJECTS or not (np.abs(costs) <= _MAX_COST).all():
        return (
            f"<p>The table must have {_MIN_OBJECTS} to {_MAX_OBJECTS} rows, as many columns, and in each cell a number "
            f"of at most {_MAX_COST:,}.</p>"
        )
    return view.assignments(all_assignments(costs), optimal_assignment(costs))


def _random_costs(size: int) -> list[list[float]]:
    costs: list[list[float]] = np.random.default_rng(size).integers(1, 10, (size, size)).astype(float).tolist()
    return costs


def _query_names(count: int) -> list[str]:
    return [f"q{number}" for number in range(1, count + 1)]


def _set_prediction(page: gr.Blocks) -> None:
    gr.Markdown(
        "### 2. Set prediction\nSix queries and three objects: the ground truth is padded with “no object” (∅) to six. The matching σ̂ "
        "minimizes the sum of the costs, weighted by λ. Compare the matching methods: only one-to-one matching trains a second query "
        "not to predict the same object. **Drag a box**, or select it with Tab and move it with the arrow keys."
    )
    with gr.Row():
        with gr.Column(min_width=300):
            method = gr.Radio(_METHODS, value=_METHODS[0], label="Matching method", elem_id="lesson-method")
            weights = weight_sliders("lesson")
            reset = gr.Button("Reset all boxes", size="sm")
            centers = gr.Textbox("{}", elem_id="lesson-centers", elem_classes="unseen", container=False)
        image = gr.HTML(elem_id="lesson-toy")
    matrix, targets = gr.HTML(elem_id="lesson-matrix"), gr.HTML(elem_id="lesson-targets")
    show: dict[str, Any] = {
        "fn": set_prediction_html,
        "inputs": [method, centers, *weights],
        "outputs": [image, matrix, targets],
        **LIVE_EVENT,
    }
    for control in (method, centers, *weights):
        control.change(**show, trigger_mode="always_last")
    reset.click(lambda: "{}", outputs=[centers], **LIVE_EVENT)
    page.load(**show)


def set_prediction_html(
    method: str, centers: str, class_weight: float, l1_weight: float, giou_weight: float
) -> tuple[str, str, str]:
    """Return the toy image, its cost matrix, and the training target of each query."""
    toy = Toy(parse_centers(centers))
    costs = toy.costs(class_weight, l1_weight, giou_weight)
    queries = match_by_each_method(costs)[method]
    return view.toy(toy, queries), view.cost_matrix(costs, queries), view.query_targets(queries)


def _distances(page: gr.Blocks) -> None:
    gr.Markdown(
        "### 3. Distances between boxes\nTwo pairs with the same relative error, one small and one large. L1 depends on the size of the "
        "boxes; IoU and its variants do not. Drag the dashed prediction until the boxes don’t touch: then the gradient of IoU is 0, and "
        "that of GIoU is not."
    )
    with gr.Row():
        shift = gr.Slider(-2, 2, value=0.4, step=0.05, label="Shift to the right, in widths", elem_id="lesson-shift")
        down = gr.Slider(-1, 1, value=0, step=0.05, label="Shift down, in heights", elem_id="lesson-down")
        size = gr.Slider(0.2, 2, value=1.2, step=0.05, label="Size, relative to the object", elem_id="lesson-size")
    pair, distance_table = gr.HTML(elem_id="lesson-pair"), gr.HTML(elem_id="lesson-distances")
    gradient_table = gr.HTML(elem_id="lesson-gradients")
    show: dict[str, Any] = {
        "fn": lambda *pair: (
            view.pair(*pair),
            view.distance_table(distances(*pair)),
            view.gradient_table(gradients(*pair)),
        ),
        "inputs": [shift, size, down],
        "outputs": [pair, distance_table, gradient_table],
        **LIVE_EVENT,
    }
    for control in (shift, size, down):
        control.change(**show, trigger_mode="always_last")
    page.load(**show)


def _logarithm() -> None:
    gr.Markdown("### 4. The probability in the cost, its logarithm in the loss")
    with gr.Row():
        with gr.Column(min_width=300):
            gr.HTML(view.curves())
        with gr.Column(min_width=300):
            gr.HTML(view.two_assignments(PAIR_PROBABILITIES, *by_probability_and_logarithm()))


def _quiz() -> None:
    gr.Markdown("### 5. Quiz")
    for index, question in enumerate(QUIZ):
        choice = gr.Radio(list(question.answers), label=question.text, elem_id=f"quiz-{index}")
        review = gr.Markdown(elem_id=f"answer-{index}")
        choice.change(lambda answer, index=index: review_answer(index, answer), [choice], [review], **LIVE_EVENT)
