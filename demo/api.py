"""The endpoints for `gradio_client`: `predict(image)` and `match(image, truth, weights)`."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr
from controls import page_error, reason_of, upload_path
from detect import detect_upload
from matching import MatchSettings, predict_scene, try_match
from uploads import UploadedImage, read_upload

from detr_ft.errors import InputError
from detr_ft.inference import Detector

_WEIGHT_NAMES = ("class", "L1", "GIoU")
_MAX_WEIGHT = 1e6
_MAX_NAMES_IN_MESSAGE = 20


def add_endpoints(detector: Detector) -> None:
    """Add the endpoints to a page, without visible components."""
    with gr.Row(visible=False):
        image = gr.Image(type="filepath", image_mode=None)
        image.preprocess = upload_path
        truth, weights, answer = gr.JSON(), gr.JSON(value={}), gr.JSON()
        # Clients pass arguments by the parameter names of these functions.
        gr.Button().click(lambda image: predict(detector, image), [image], [answer], api_name="predict")
        gr.Button().click(
            lambda image, truth, weights: match(detector, image, truth, weights),
            [image, truth, weights],
            [answer],
            api_name="match",
        )


def predict(detector: Detector, path: str | None) -> list[dict[str, Any]]:
    """Return the detections above the threshold of their class, at most 100, best first.

    Each has `class`, `score`, and `box` (xyxy in pixels of the upright image).
    """
    upload = _read_image(path)
    try:
        detections = detector.filter(detect_upload(detector, upload))
    except InputError as error:
        raise page_error(f"The model can't process this image: {reason_of(error)}") from error
    return [
        {"class": name, "score": round(score, 4), "box": [round(side, 2) for side in box]}
        for box, score, name in detections
    ]


def match(detector: Detector, path: str | None, truth: Any, weights: Any) -> dict[str, Any]:
    """Return the matching of the last layer's queries with the objects of an image.

    `truth` is a list of `class` and `box` (xyxy, pixels). `weights` are those of the costs by name (class, L1, GIoU);
    DETR's own are the default. The result has `costs`, objects by queries, and `pairs`. A pair has `object` (its index
    in the truth), `query`, `cost`, `terms`, `regret` (null if there is no alternative) and the alternative query
    `instead`.
    """
    upload = _read_image(path)
    boxes, labels = _read_truth(truth, list(detector.names), upload.size)
    settings = MatchSettings(_read_weights(weights))
    try:
        scene = predict_scene(detector, upload.image, boxes, labels, upload.size)
    except InputError as error:
        raise page_error(f"The model can't process this image: {reason_of(error)}") from error
    matched = try_match(scene, settings)
    if isinstance(matched, str):
        raise page_error(matched)
    last = matched.explanation.layers[-1]
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


def _read_image(path: str | None) -> UploadedImage:
    if path is None:
        raise page_error("The image is missing. Upload one.")
    try:
        return read_upload(path)
    except InputError as error:
        raise page_error(f"This image can't be read: {reason_of(error, path)}") from error


def _read_truth(truth: Any, names: list[str], size: tuple[int, int]) -> tuple[list[list[float]], list[int]]:
    """Check the JSON of the objects and return boxes, xyxy in pixels, and labels.

    A box may exceed the image by a pixel, and is clipped.
    """
    try:
        if not isinstance(truth, list) or any(not isinstance(entry["box"], list) for entry in truth):
            raise TypeError("wrong type")
        boxes = [[float(side) for side in entry["box"]] for entry in truth]
        labels = [names.index(entry["class"]) for entry in truth]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        classes = ", ".join(names[:_MAX_NAMES_IN_MESSAGE])
        raise page_error(f"truth must be a list of {{class, box}} with a class of {classes}: {error}") from error
    if any(len(box) != 4 or not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1] for box in boxes):
        raise page_error("truth: box must be [left, top, right, bottom] in pixels, with left < right and top < bottom.")
    width, height = size
    if any(min(box) < 0 or box[2] > width + 1 or box[3] > height + 1 for box in boxes):
        raise page_error(f"truth: box must be within the image of {width} x {height} pixels.")
    return [[box[0], box[1], min(box[2], width), min(box[3], height)] for box in boxes], labels


def _read_weights(weights: Any) -> tuple[float, ...]:
    given = {} if weights is None else weights
    valid = isinstance(given, dict) and set(given) <= set(_WEIGHT_NAMES)
    if not valid or not all(type(value) in (int, float) and 0 <= value <= _MAX_WEIGHT for value in given.values()):
        raise page_error(f"weights must map {', '.join(_WEIGHT_NAMES)} to numbers from 0 to {_MAX_WEIGHT:g}.")
    defaults = zip(_WEIGHT_NAMES, MatchSettings().weights, strict=True)
    return tuple(float(given.get(name, default)) for name, default in defaults)
