"""The contract of a model family, checked on a tiny random model of each; a new family is added to `TINY_MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from models.families.test_family import table_transformer, yolos
from models.test_attach import batch
from PIL import Image
from torch import nn
from transformers import (
    AutoModelForObjectDetection,
    DetrForObjectDetection,
    DetrImageProcessor,
    PreTrainedModel,
    YolosImageProcessor,
)

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.errors import InputError
from detr_ft.models.attach import attach_criterion
from detr_ft.models.attention import attention_maps
from detr_ft.models.export import trace
from detr_ft.models.families import FAMILIES, Family, family_of, find_family
from detr_ft.models.freeze import set_trainable, trainable_counts
from detr_ft.models.label_map import fit_labels
from detr_ft.models.lora import add_adapters
from detr_ft.models.surgery import set_queries, truncate_decoder


def detr() -> DetrForObjectDetection:
    torch.manual_seed(0)
    return DetrForObjectDetection(tiny_config())


TINY_MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "detr": detr,
    "table-transformer": table_transformer,
    "yolos": yolos,
}
PROCESSORS = {"yolos": YolosImageProcessor}  # the others use DetrImageProcessor

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)


def tiny(family: Family) -> PreTrainedModel:
    return TINY_MODELS[family.model_type]()


def test_every_family_is_checked() -> None:
    assert sorted(TINY_MODELS) == sorted(family.model_type for family in FAMILIES)


@every_family
def test_family_of_model_and_config(family: Family) -> None:
    model = tiny(family)
    assert family_of(model) is family_of(model.config) is family
    assert isinstance(model, family.model_class)


def test_family_of_other_models() -> None:
    assert find_family(nn.Linear(1, 1)) is None
    with pytest.raises(TypeError, match=r"got Linear"):
        family_of(nn.Linear(1, 1))


@every_family
def test_paths_lead_to_modules(family: Family) -> None:
    model = tiny(family)
    paths = ("backbone", "projection", "query_embedding")
    assert set(paths) < {field.name for field in fields(family)}
    for name in paths:
        path = getattr(family, name)
        assert path is None or isinstance(model.get_submodule(path), nn.Module)
    for path in family.class_layers:
        head = model.get_submodule(path)
        assert isinstance(head, nn.Linear)
        assert head.out_features == model.config.num_labels + (family.activation == "softmax")
    assert family.compiled_parts(model)
    assert set(family.freeze) <= {family.part_of(name).name for name, _ in model.named_parameters()} | {
        "backbone.stem", "backbone.stage1"
    }  # fmt: skip


@every_family
def test_prefixes_cover_every_parameter_once(family: Family) -> None:
    used = set()
    for name, _ in tiny(family).named_parameters():
        matching = [part for part in family.parts if name.startswith(part.prefix)]
        assert len(matching) == 1, name
        used |= {matching[0].prefix}
        assert family.part_of(name).name.split(".")[0] == matching[0].name
    assert used == {part.prefix for part in family.parts}
    assert {"class_head", "box_head"} <= {part.name for part in family.parts if part.section == "heads"}


@every_family
def test_freeze_by_parts(family: Family) -> None:
    model = tiny(family)
    set_trainable(model, ["encoder"])
    for part, (training, total) in trainable_counts(model).items():
        assert training == (0 if part == "encoder" else total), part


@every_family
def test_outputs_become_predictions_and_train_a_step(family: Family) -> None:
    model = tiny(family).train()
    set_trainable(model, [])
    attached = attach_criterion(model, family.default_criterion())
    outputs = model(**batch())
    assert attached.last is not None
    predictions, targets = attached.last
    rows = len(outputs.auxiliary_outputs) + 1
    queries = outputs.logits.shape[1]
    assert queries == family.num_queries(model.config)
    assert predictions.logits.shape == (rows, 2, queries, outputs.logits.shape[-1])
    assert predictions.boxes.shape == (rows, 2, queries, 4)
    assert predictions.num_classes == model.config.num_labels
    assert predictions.activation == family.activation
    assert torch.equal(predictions.logits[-1], outputs.logits)
    assert torch.equal(predictions.boxes[-1], outputs.pred_boxes)
    assert targets.counts == (2, 1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    outputs.loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    changed = {
        family.part_of(name).section for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed == {part.section for part in family.parts}


@every_family
@torch.no_grad()
def test_rows_of_the_decoder_end_in_the_outputs(family: Family) -> None:
    """The heads on the last recorded layer are those that the model itself applies."""
    model = tiny(family).eval()
    attached = attach_criterion(model)
    outputs = model(batch()["pixel_values"])
    if not family.recorded_modules(model):
        with pytest.raises(NotImplementedError):
            attached.layer_outputs()
        return
    logits, boxes = attached.layer_outputs()
    torch.testing.assert_close(logits[-1], outputs.logits)
    torch.testing.assert_close(boxes[-1], outputs.pred_boxes)


@every_family
@torch.no_grad()
def test_top_detections_are_those_of_the_processor(family: Family) -> None:
    model = tiny(family).eval()
    for path in family.class_layers:
        model.get_submodule(path).weight.normal_(0, 3)  # scores that differ
    outputs = model(batch()["pixel_values"])
    scores, labels, queries = family.top_detections(family.final(outputs.logits, outputs.pred_boxes), 5)
    processor = PROCESSORS.get(family.model_type, DetrImageProcessor)()
    sizes = [(40, 60), (30, 20)]
    expected = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
    for image, (height, width) in enumerate(sizes):
        order = expected[image]["scores"].argsort(descending=True, stable=True)[:5]
        torch.testing.assert_close(scores[image], expected[image]["scores"][order])
        assert torch.equal(labels[image], expected[image]["labels"][order])
        boxes = cxcywh_to_xyxy(outputs.pred_boxes[image, queries[image]]) * torch.tensor([width, height] * 2)
        torch.testing.assert_close(boxes, expected[image]["boxes"][order])


@every_family
@torch.no_grad()
def test_save_and_load(family: Family, tmp_path: Path) -> None:
    model = tiny(family).eval()
    fit_labels(model, ["owl", "elk"])
    pixels = batch()["pixel_values"]
    expected = model(pixels).logits
    assert expected.shape[-1] == 2 + (family.activation == "softmax")
    model.save_pretrained(tmp_path)
    again = AutoModelForObjectDetection.from_pretrained(tmp_path).eval()
    assert family_of(again) is family
    assert torch.equal(again(pixels).logits, expected)


@every_family
@pytest.mark.parametrize(
    "operation", ["num_queries", "decoder_layers", "lora", pytest.param("export", marks=pytest.mark.slow)]
)
def test_operations_work_or_are_refused(family: Family, operation: str) -> None:
    model = tiny(family)
    operations: dict[str, Callable[[], object]] = {
        "num_queries": lambda: set_queries(model, 5, torch.arange(8)),
        "decoder_layers": lambda: truncate_decoder(model, 2),
        "lora": lambda: add_adapters(model, rank=2, alpha=2),
        "export": lambda: trace(model),
    }
    if operation not in family.supports:
        with pytest.raises(InputError, match=f"{family.name} does not support {operation}"):
            operations[operation]()
        return
    operations[operation]()
    logits = model.eval()(batch()["pixel_values"]).logits
    columns = model.config.num_labels + (family.activation == "softmax")
    assert logits.shape == (2, 5 if operation == "num_queries" else 8, columns)


@every_family
def test_attention_maps(family: Family) -> None:
    model = tiny(family).eval()
    processor = DetrImageProcessor(size={"max_height": 64, "max_width": 64})
    image = Image.new("RGB", (64, 48))
    if "attention" not in family.supports:
        with pytest.raises(InputError, match=f"{family.name} does not support attention"):
            attention_maps(model, processor, image)
        return
    maps = attention_maps(model, processor, image)
    assert maps.decoder.shape == (model.config.decoder_layers, model.config.num_queries, maps.grid[0] * maps.grid[1])
