"""The tab that sets two things side by side on one image: two checkpoints, or two criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html import escape
from typing import Any

import gradio as gr
import matching_view as view
from controls import LEAST_EOS, LIVE, REMEMBERED, eos_slider, matcher_choice, numbered, weight_sliders
from examples import Example
from markup import head, table
from matching import Knobs, Scene, Solved, look, tried

from detr_ft.inference import Detector

_TWO_MODELS = (
    "Two models on one image, each with its own weights of the costs, its own matcher, and weight of no-object."
)
_TWO_CRITERIA = (
    "Two criteria on one image, each with its own weights of the costs, its own matcher, and weight of no-object. "
    "With `detr-ft demo MODEL --compare ANOTHER` two models stand here."
)
_ALIKE = 0.02  # IoU


def tab(page: gr.Blocks, first: Detector, second: Detector | None, given: Sequence[Example]) -> None:
    """Build it, inside the page; without a second model the first one is matched by two criteria."""
    if second and not Sides(first, second, numbered(given)).comparable:
        apart = sorted(set(first.names) ^ set(second.names))
        gr.Markdown(
            f"The two models don't know the same classes (one of them alone knows {', '.join(apart[:6])}): there is no image for both."
        )
        second = None
    sides = Sides(first, second or first, numbered(given))
    if not sides.comparable:
        gr.Markdown("There are no images whose classes are known here: start the demo with `--data`.")
        return
    gr.Markdown(_TWO_MODELS if second else _TWO_CRITERIA)
    choices = list(sides.comparable)
    chosen = gr.Dropdown(choices, value=choices[0], label="Image", elem_id="compare-choice")
    knobs, pictures = [], []
    with gr.Row():
        # Two criteria begin with one to many at the right, which differs on any image.
        matchers = ["Hungarian", "one to many", "greedy"]
        others = matchers if second else ["one to many", "Hungarian", "greedy"]
        for place, choices_of in (("left", matchers), ("right", others)):
            with gr.Column(min_width=300):
                knobs += [
                    matcher_choice("Matcher", f"compare-matcher-{place}", choices_of),
                    *weight_sliders(f"compare-{place}"),
                    eos_slider(f"compare-eos-{place}"),
                ]
                pictures.append(gr.HTML(elem_id=f"compare-{place}"))
    told, held = gr.HTML(elem_id="compare-told"), gr.State(None, time_to_live=3600)

    drawing: dict[str, Any] = {"fn": sides.show, "inputs": [held, *knobs], "outputs": [*pictures, told], **LIVE}
    chosen.input(sides.begin, [chosen], [held], **LIVE).then(**drawing)
    for knob in knobs:
        knob.change(**drawing, trigger_mode="always_last")
    page.load(sides.begin, [chosen], [held], **LIVE).then(**drawing)


@dataclass(frozen=True, eq=False)
class Both:
    """One image as each side sees it."""

    left: Scene
    right: Scene


@dataclass(frozen=True, eq=False)
class Sides:
    """What the events of the tab do."""

    first: Detector
    second: Detector
    by_name: Mapping[str, Example]

    @property
    def comparable(self) -> list[str]:
        """The images whose classes both models know."""
        known = set(self.first.names) & set(self.second.names)
        return [name for name, one in self.by_name.items() if set(one.names) <= known]

    def begin(self, name: str) -> Both:
        """An image, as each model sees it."""
        return self._both_of(name)

    @cached_property
    def _both_of(self) -> Callable[[str], Both]:
        """The models are asked once about each image, for everybody."""
        return lru_cache(REMEMBERED)(self._look)

    def _look(self, name: str) -> Both:
        one = self.by_name[name]
        return Both(
            *(
                look(model, one.name, one.picture, one.boxes, one.labels(model.names))
                for model in (self.first, self.second)
            )
        )

    def show(self, both: Both | None, *knobs: Any) -> tuple[str, str, str]:
        """Both pictures at the last layer, and the differences.

        Each side by its matcher, its weights of class, L1 and GIoU, and its weight of no-object, in this order.
        """
        if both is None:
            return "", "", ""
        left, right = (
            tried(scene, Knobs(tuple(weight or 0.0 for weight in weights), matcher, eos or LEAST_EOS))
            for scene, (matcher, *weights, eos) in ((both.left, knobs[:5]), (both.right, knobs[5:]))
        )
        if isinstance(left, str) or isinstance(right, str):
            said = [f"<p>{escape(one)}</p>" if isinstance(one, str) else "" for one in (left, right)]
            return said[0], said[1], ""
        pictures = [
            view.picture(one, len(one.told.layers), model.names)
            for one, model in ((left, self.first), (right, self.second))
        ]
        return pictures[0], pictures[1], differences(left, right, self.first.names, self.first is self.second)


def differences(left: Solved, right: Solved, names: Sequence[str], one_model: bool) -> str:
    """Object by object, whom each side matches it with, and how well that box lies.

    Of one model the queries are compared; those of two have nothing to do with each other, and it is told whose box lies better.
    """
    rows = []
    overlaps = [one.overlaps(len(one.told.layers)) for one in (left, right)]
    taken = [
        [
            [pair.query for pair in one.told.layers[-1].pairs if pair.target == target]
            for target in range(len(one.scene.boxes))
        ]
        for one in (left, right)
    ]
    for target, both in enumerate(zip(*taken, strict=True)):
        cells = "".join(
            f"<td>{', '.join(f'q{query}' for query in queries) or '–'}</td>"
            f"<td>{', '.join(f'{float(overlap[target, query]):.2f}' for query in queries)}</td>"
            for queries, overlap in zip(both, overlaps, strict=True)
        )
        if one_model:
            same = "" if set(both[0]) == set(both[1]) else "other"
        else:
            same = _better(
                *(
                    max((float(overlap[target, query]) for query in queries), default=0.0)
                    for queries, overlap in zip(both, overlaps, strict=True)
                )
            )
        label = names[int(left.scene.labels[target])]
        rows.append(f'<tr><th scope="row">{target + 1} {escape(label)}</th>{cells}<td class="changed">{same}</td></tr>')
    sums = "".join(
        f"<td></td><td>{sum(sum(pair[-1]) for pair in one.losses().values()):.3f}</td>" for one in (left, right)
    )
    rows.append(f'<tr class="sum"><th scope="row">loss, last layer</th>{sums}<td></td></tr>')
    return table("Left and right", head(["object", "left", "IoU", "right", "IoU", ""]), rows)


def _better(left: float, right: float) -> str:
    """Which of two overlaps is the larger one, by more than a hair."""
    return "" if abs(left - right) < _ALIKE else "left lies better" if left > right else "right lies better"
