"""The tab that sets two things side by side on one image: two checkpoints, or two criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
import matching_view as view
from matching import MATCHERS, Knobs, Scene, Solved, look, solve
from tables import head, table
from truth import Example

from detr_ft.inference import Detector


@dataclass(frozen=True, eq=False)
class Both:
    """One image as each side sees it."""

    left: Scene
    right: Scene


def tab(page: gr.Blocks, first: Detector, second: Detector | None, given: Sequence[Example]) -> None:
    """Build it, inside the page; without a second model the first one is matched by two criteria."""
    other = second or first
    known = set(first.names) & set(other.names)
    by_name = {f"{number}. {one.name}": one for number, one in enumerate(given, start=1) if set(one.names) <= known}
    if not by_name:
        gr.Markdown("There are no images whose classes are known here: start the demo with `--data`.")
        return
    words = "Two models" if second else "Two criteria"
    gr.Markdown(
        f"{words} on one image. {'' if second else 'With `detr-ft demo MODEL --compare ANOTHER` two models stand here. '}Each side has its own weights and matcher."
    )
    chosen = gr.Dropdown(list(by_name), value=next(iter(by_name)), label="Image", elem_id="compare-choice")
    sides = []
    with gr.Row():
        for place, start in (("left", (1.0, 5.0, 2.0)), ("right", (1.0, 5.0, 2.0) if second else (5.0, 1.0, 0.0))):
            with gr.Column(min_width=300):
                matcher = gr.Radio(
                    list(MATCHERS), value=MATCHERS[0], label=f"Matcher, {place}", elem_id=f"compare-matcher-{place}"
                )
                with gr.Row():
                    weights = [
                        gr.Slider(
                            0, most, value=value, step=0.1, label=name, min_width=90, elem_id=f"compare-{place}-{name}"
                        )
                        for name, value, most in zip(("class", "L1", "GIoU"), start, (5, 20, 10), strict=True)
                    ]
                sides.append((matcher, weights, gr.HTML(elem_id=f"compare-{place}")))
    told = gr.HTML(elem_id="compare-told")
    held = gr.State(None, time_to_live=3600)

    def begin(name: str) -> Both:
        one = by_name[name]
        both = [
            look(model, one.name, one.picture, one.boxes, [model.names.index(each) for each in one.names])
            for model in (first, other)
        ]
        return Both(*both)

    def show(
        both: Both | None, left: str, a: float, b: float, c: float, right: str, d: float, e: float, f: float
    ) -> tuple[str, str, str]:
        if both is None:
            return "", "", ""
        solved = [solve(both.left, Knobs((a, b, c), left)), solve(both.right, Knobs((d, e, f), right))]
        last = [len(one.told.layers) for one in solved]
        pictures = [
            view.picture(one, layer, model.names)
            for one, layer, model in zip(solved, last, (first, other), strict=True)
        ]
        return pictures[0], pictures[1], differences(solved[0], solved[1], first.names)

    live: dict[str, Any] = {"show_progress": "hidden", "api_name": False}
    knobs = [knob for matcher, weights, _ in sides for knob in (matcher, *weights)]
    drawing: dict[str, Any] = {
        "fn": show,
        "inputs": [held, *knobs],
        "outputs": [*(html for *_, html in sides), told],
        **live,
    }
    chosen.input(begin, [chosen], [held], **live).then(**drawing)
    for knob in knobs:
        knob.change(**drawing, trigger_mode="always_last")
    page.load(begin, [chosen], [held], **live).then(**drawing)


def differences(left: Solved, right: Solved, names: Sequence[str]) -> str:
    """Object by object, whom each side matches it with, and how well that box lies."""
    rows = []
    overlaps = [one.overlaps(len(one.told.layers)) for one in (left, right)]
    partners = [[queries[-1] for queries in one.told.partners] for one in (left, right)]
    for target, both in enumerate(zip(*partners, strict=True)):
        cells = "".join(
            "<td>–</td><td></td>" if query is None else f"<td>q{query}</td><td>{float(overlap[target, query]):.2f}</td>"
            for query, overlap in zip(both, overlaps, strict=True)
        )
        same = "" if both[0] == both[1] else "other"
        label = names[int(left.scene.labels[target])]
        rows.append(f'<tr><th scope="row">{target + 1} {escape(label)}</th>{cells}<td class="changed">{same}</td></tr>')
    sums = "".join(
        f"<td></td><td>{sum(sum(pair[-1]) for pair in one.losses().values()):.3f}</td>" for one in (left, right)
    )
    rows.append(f'<tr class="sum"><th scope="row">loss, last layer</th>{sums}<td></td></tr>')
    return table("Left and right", head(["object", "left", "IoU", "right", "IoU", ""]), rows)
