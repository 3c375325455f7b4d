"""What the page answers to programs, by `gradio_client`: `predict(image)` and `match(image, truth, weights)`."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr
from controls import refused, uploaded
from matching import Knobs, look, tried

from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.inference import Detector

_WEIGHTS = ("class", "L1", "GIoU")
_HEAVIEST = 1e6


def endpoints(detector: Detector) -> None:
    """Make them, inside a page; nothing of them is seen."""
    with gr.Row(visible=False):
        image = gr.Image(type="filepath", image_mode=None)
        image.preprocess = uploaded
        truth, weights, answer = gr.JSON(), gr.JSON(value={}), gr.JSON()
        # Programs give arguments by the names that these two have.
        gr.Button().click(lambda image: predict(detector, image), [image], [answer], api_name="predict")
        gr.Button().click(
            lambda image, truth, weights: match(detector, image, truth, weights),
            [image, truth, weights],
            [answer],
            api_name="match",
        )


def predict(detector: Detector, path: str | None) -> list[dict[str, Any]]:
    """The best detections, a hundred at the most, above their class's threshold: `class`, `score`, and `box` xyxy in pixels of the upright picture."""
    picture = _picture(path)
    try:
        detections = detector(picture)
    except InputError as error:
        raise refused(f"This picture is nothing for the model: {error}") from error
    return [
        {"class": name, "score": round(score, 4), "box": [round(side, 2) for side in box]}
        for box, score, name in detections
    ]


def match(detector: Detector, path: str | None, truth: Any, weights: Any) -> dict[str, Any]:
    """How the last layer's queries are matched with `truth`, a list of `class` and `box` (xyxy, pixels).

    `weights` of the costs by name, class, L1 and GIoU, DETR's own where left out. The answer has `pairs`, each with its `object` (its place in
    the truth), `query`, `cost`, `terms`, `regret` (null where nothing could replace the pair) and the query `instead`, and `costs`, objects
    by queries.
    """
    picture = _picture(path)
    boxes, labels = _objects(truth, list(detector.names), picture.size)
    try:
        scene = look(detector, "picture", picture, boxes, labels)
    except InputError as error:
        raise refused(f"This picture is nothing for the model: {error}") from error
    solved = tried(scene, Knobs(_numbers(weights)))
    if isinstance(solved, str):
        raise refused(solved)
    last = solved.told.layers[-1]
    return {
        "pairs": [
            {
                "object": pair.target,
                "query": pair.query,
                "cost": round(pair.cost, 4),
                "terms": {name: round(value, 4) for name, value in pair.terms.items()},
                "regret": None if math.isinf(pair.regret) else round(pair.regret, 4),
                "instead": pair.instead,
            }
            for pair in last.pairs
        ],
        "costs": [[round(value, 4) for value in row] for row in last.costs.tolist()],
    }


def _picture(path: str | None) -> Any:
    if path is None:
        raise refused("There is no picture.")
    try:
        return open_image(path)
    except InputError as error:
        raise refused(f"This picture can't be read: {str(error).removeprefix(f'{path}: ')}") from error


def _objects(truth: Any, names: list[str], size: tuple[int, int]) -> tuple[list[list[float]], list[int]]:
    try:
        if not isinstance(truth, list) or any(not isinstance(one["box"], list) for one in truth):
            raise TypeError("it is something else")
        boxes = [[float(side) for side in one["box"]] for one in truth]
        labels = [names.index(one["class"]) for one in truth]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise refused(f"truth is a list of {{class, box}}, with classes of {', '.join(names[:20])}: {error}") from error
    if any(len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1] for box in boxes):
        raise refused("a box is [left, top, right, bottom] in pixels, the right one being the larger, and the bottom")
    if any(min(box) < 0 or box[2] > size[0] + 1 or box[3] > size[1] + 1 for box in boxes):
        raise refused(f"a box reaches beyond the picture, which is {size[0]} x {size[1]} pixels")
    width, height = size
    return [[box[0], box[1], min(box[2], width), min(box[3], height)] for box in boxes], labels


def _numbers(weights: Any) -> tuple[float, ...]:
    told = {} if weights is None else weights
    sound = isinstance(told, dict) and set(told) <= set(_WEIGHTS)
    if not sound or not all(type(one) in (int, float) and 0 <= one <= _HEAVIEST for one in told.values()):
        raise refused(f"weights is a mapping of {', '.join(_WEIGHTS)} to numbers from 0 to {_HEAVIEST:g}")
    return tuple(float(told.get(name, own)) for name, own in zip(_WEIGHTS, Knobs().weights, strict=True))
