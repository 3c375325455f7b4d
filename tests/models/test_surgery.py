"""The cost in mAP of more or fewer queries and decoder layers, before any training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.errors import InputError
from detr_ft.evaluation.coco import coco_metrics
from detr_ft.models.load import load_model
from detr_ft.models.predict import detect_split
from detr_ft.models.surgery import query_use, set_queries, truncate_decoder

DATA = generate("shapes?train=60&validation=80")


def images() -> list[Image.Image]:
    return [open_image(row["image"]) for row in DATA["train"].with_format(None).select_columns(["image"])]


def mean_precision(model: Any, processor: Any) -> float:
    detections = detect_split(model, processor, DATA["validation"])
    return float(coco_metrics(DATA["validation"], detections)["map"])


@pytest.fixture(scope="module")
def use() -> torch.Tensor:
    return query_use(*load_model("embedded:small"), images())


@pytest.fixture(scope="module")
def whole() -> float:
    return mean_precision(*load_model("embedded:small"))


@pytest.mark.parametrize(("number", "most"), [(20, 0.02), (15, 0.02), (10, 0.08), (50, 0.02), (100, 0.03)])
def test_other_numbers_of_queries_cost_little(number: int, most: float, use: torch.Tensor, whole: float) -> None:
    model, processor = load_model("embedded:small")
    set_queries(model, number, use)
    assert model.config.num_queries == number
    cost = whole - mean_precision(model, processor)
    print(f"{number} queries: {cost:+.4f}")
    assert cost <= most


@pytest.mark.parametrize("number", [15, 50])
def test_the_choice_by_use_matters(number: int, use: torch.Tensor, whole: float) -> None:
    model, processor = load_model("embedded:small")
    set_queries(model, number, -use)  # the idle ones stay, the busy ones are copied
    cost = whole - mean_precision(model, processor)
    print(f"{number} queries, the wrong way round: {cost:+.4f}")
    assert cost > 0.1


def test_copies_are_not_equal(use: torch.Tensor) -> None:
    model, _ = load_model("embedded:small")
    before = model.model.query_position_embeddings.weight.detach().clone()
    set_queries(model, 60, use)
    queries = model.model.query_position_embeddings.weight
    assert torch.equal(queries[:25], before)
    assert len(torch.unique(queries.round(decimals=4), dim=0)) == 60
    assert queries.requires_grad


@pytest.mark.parametrize(("number", "most"), [(3, 0.02), (2, 0.03), (1, 0.08)])
def test_fewer_decoder_layers_cost_little(number: int, most: float, whole: float) -> None:
    model, processor = load_model("embedded:small")
    truncate_decoder(model, number)
    assert len(model.model.decoder.layers) == number == model.config.decoder_layers
    cost = whole - mean_precision(model, processor)
    print(f"{number} decoder layers: {cost:+.4f}")
    assert cost <= most


@pytest.mark.parametrize("number", [0, 5])
def test_layers_that_are_not_there_are_refused(number: int) -> None:
    with pytest.raises(InputError, match=r"model\.decoder_layers: must be from 1 to 4"):
        truncate_decoder(load_model("embedded:small")[0], number)
