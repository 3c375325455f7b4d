"""The tab Compare: two checkpoints, or two criteria, side by side on one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html import escape
from typing import Any

import gradio as gr
import matching_view as view
from controls import (
    LIVE_EVENT,
    MAX_CACHED_IMAGES,
    MIN_EOS_COEF,
    SESSION_STATE_SECONDS,
    by_label,
    eos_slider,
    matcher_radio,
    weight_sliders,
)
from examples import Example
from markup import header_row, table
from matching import GREEDY, HUNGARIAN, ONE_TO_MANY, MatchedScene, MatchSettings, Scene, predict_scene, try_match

from detr_ft.inference import Detector

_SETTINGS = "each with its own cost weights, matcher and weight of no-object."
_TWO_MODELS = f"Two models on one image, {_SETTINGS}"
_TWO_CRITERIA = f"Two criteria on one image, {_SETTINGS} `detr-ft demo MODEL --compare OTHER` compares two models."
_MIN_IOU_DIFFERENCE = 0.02  # smaller ones are not reported
_MAX_NAMES_IN_MESSAGE = 6
_NUM_SETTINGS = 5  # of a side


def build(page: gr.Blocks, first: Detector, second: Detector | None, examples: Sequence[Example]) -> None:
    """Build the tab inside a page; without a second model the first one is matched by two criteria."""
    if second and not CompareHandlers(first, second, by_label(examples)).comparable:
        different = sorted(set(first.names) ^ set(second.names))[:_MAX_NAMES_IN_MESSAGE]
        gr.Markdown(f"The models have no image in common: only one of them has the classes {', '.join(different)}.")
        second = None
    handlers = CompareHandlers(first, second or first, by_label(examples))
    if not handlers.comparable:
        gr.Markdown("There are no images of the model's classes. Start the demo with `--data`.")
        return
    gr.Markdown(_TWO_MODELS if second else _TWO_CRITERIA)
    choices = list(handlers.comparable)
    choice = gr.Dropdown(choices, value=choices[0], label="Image", elem_id="compare-choice")
    settings, images = [], []
    with gr.Row():
        matchers = [HUNGARIAN, ONE_TO_MANY, GREEDY]
        # Two criteria start with different matchers, so that they differ on every image.
        right_matchers = matchers if second else [ONE_TO_MANY, HUNGARIAN, GREEDY]
        for side, matchers_of_side in (("left", matchers), ("right", right_matchers)):
            with gr.Column(min_width=300):
                settings += [
                    matcher_radio(f"compare-matcher-{side}", matchers_of_side),
                    *weight_sliders(f"compare-{side}"),
                    eos_slider(f"compare-eos-{side}"),
                ]
                images.append(gr.HTML(elem_id=f"compare-{side}"))
    differences_table, scenes = gr.HTML(elem_id="compare-table"), gr.State(None, time_to_live=SESSION_STATE_SECONDS)

    show: dict[str, Any] = {
        "fn": handlers.show,
        "inputs": [scenes, *settings],
        "outputs": [*images, differences_table],
        **LIVE_EVENT,
    }
    choice.input(handlers.open_example, [choice], [scenes], **LIVE_EVENT).then(**show)
    for control in settings:
        control.change(**show, trigger_mode="always_last")
    page.load(handlers.open_example, [choice], [scenes], **LIVE_EVENT).then(**show)


@dataclass(frozen=True, eq=False)
class ScenePair:
    """An image with the predictions of the model on each side."""

    left: Scene
    right: Scene


@dataclass(frozen=True, eq=False)
class CompareHandlers:
    """The event handlers of the tab."""

    first: Detector
    second: Detector
    by_label: Mapping[str, Example]

    @property
    def comparable(self) -> list[str]:
        """The labels of the images whose classes both models have."""
        common = set(self.first.names) & set(self.second.names)
        return [label for label, example in self.by_label.items() if set(example.class_names) <= common]

    def open_example(self, label: str) -> ScenePair:
        """Return the scenes of an example."""
        return self._scenes_of(label)

    @cached_property
    def _scenes_of(self) -> Callable[[str], ScenePair]:
        """Predictions of the examples, cached for all sessions."""
        return lru_cache(MAX_CACHED_IMAGES)(self._predict)

    def _predict(self, label: str) -> ScenePair:
        example = self.by_label[label]
        return ScenePair(
            *(
                predict_scene(model, example.image, example.boxes, example.labels(model.names))
                for model in (self.first, self.second)
            )
        )

    def show(self, scenes: ScenePair | None, *settings: Any) -> tuple[str, str, str]:
        """Return both images at the last layer, and the table of differences.

        `settings` are those of the left, then of the right side: matcher, weights of class, L1 and GIoU, weight of
        no-object.
        """
        if scenes is None:
            return "", "", ""
        left, right = (
            try_match(
                scene, MatchSettings(tuple(weight or 0.0 for weight in weights), matcher, eos_coef or MIN_EOS_COEF)
            )
            for scene, (matcher, *weights, eos_coef) in (
                (scenes.left, settings[:_NUM_SETTINGS]),
                (scenes.right, settings[_NUM_SETTINGS:]),
            )
        )
        if isinstance(left, str) or isinstance(right, str):
            messages = [f"<p>{escape(side)}</p>" if isinstance(side, str) else "" for side in (left, right)]
            return messages[0], messages[1], ""
        images = [
            view.image(side, side.num_layers, model.names) for side, model in ((left, self.first), (right, self.second))
        ]
        return images[0], images[1], differences(left, right, self.first.names, self.first is self.second)


def differences(left: MatchedScene, right: MatchedScene, names: Sequence[str], one_model: bool) -> str:
    """Return a table of the queries that each side matches with each object, and their IoU.

    For one model, different queries are highlighted. The queries of two models are unrelated, so for these the side
    with the larger IoU is highlighted.
    """
    rows = []
    sides = (left, right)
    overlaps = [side.overlaps(side.num_layers) for side in sides]
    for target, label in enumerate(left.scene.labels.tolist()):
        queries = [_queries_of(side, target) for side in sides]
        ious = [values[target, chosen].tolist() for values, chosen in zip(overlaps, queries, strict=True)]
        cells = "".join(
            f"<td>{', '.join(f'q{query}' for query in chosen) or '–'}</td>"
            f"<td>{', '.join(f'{iou:.2f}' for iou in values)}</td>"
            for chosen, values in zip(queries, ious, strict=True)
        )
        if one_model:
            mark = "" if set(queries[0]) == set(queries[1]) else "different"
        else:
            mark = _better_side(*(max(values, default=0.0) for values in ious))
        rows.append(
            f'<tr><th scope="row">{target + 1} {escape(names[label])}</th>{cells}<td class="changed">{mark}</td></tr>'
        )
    sums = "".join(f"<td></td><td>{side.last_loss():.3f}</td>" for side in sides)
    rows.append(f'<tr class="sum"><th scope="row">loss, last layer</th>{sums}<td></td></tr>')
    return table("Left and right", header_row(["object", "left", "IoU", "right", "IoU", ""]), rows)


def _queries_of(matched: MatchedScene, target: int) -> list[int]:
    return [pair.query for pair in matched.layer(matched.num_layers).pairs if pair.target == target]


def _better_side(left: float, right: float) -> str:
    """Name the side of the larger IoU, unless the difference is small."""
    return "" if abs(left - right) < _MIN_IOU_DIFFERENCE else "left is better" if left > right else "right is better"
