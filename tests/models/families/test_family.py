"""Families beside DETR: Table Transformer in every step, YOLOS in a loop, others refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, tiny_config
from models.test_attach import batch
from support.small_run import make_trainer
from transformers import (
    AutoConfig,
    DetrImageProcessor,
    TableTransformerConfig,
    TableTransformerForObjectDetection,
    YolosConfig,
    YolosForObjectDetection,
)

from detr_ft.criterion import (
    BoxL1Loss,
    CIoULoss,
    CrossEntropyLoss,
    DIoULoss,
    GIoULoss,
    GreedyMatcher,
    HungarianMatcher,
    OneToManyMatcher,
    SetCriterion,
    SmoothL1Loss,
    SoftmaxFocalLoss,
    SoftmaxMatchabilityLoss,
    SoftmaxQualityFocalLoss,
    SoftmaxVarifocalLoss,
    detr_criterion,
)
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models.attach import attach_criterion
from detr_ft.models.families import family_of
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model

CRITERIA: dict[str, Callable[[], SetCriterion]] = {
    "detr": detr_criterion,
    "focal": lambda: SetCriterion(HungarianMatcher(), [SoftmaxFocalLoss(), SmoothL1Loss(), DIoULoss()]),
    "quality": lambda: SetCriterion(HungarianMatcher(), [SoftmaxQualityFocalLoss(), BoxL1Loss(), CIoULoss()]),
    "varifocal": lambda: SetCriterion(GreedyMatcher(), [SoftmaxVarifocalLoss(), BoxL1Loss(), GIoULoss()]),
    "one-to-many": lambda: SetCriterion(
        OneToManyMatcher(), [CrossEntropyLoss(), GIoULoss(), SoftmaxMatchabilityLoss()]
    ),
}
NAMES = {0: "cat", 1: "dog", 2: "owl"}
PIXELS = batch()["pixel_values"]


def table_transformer() -> TableTransformerForObjectDetection:
    torch.manual_seed(0)
    backbone = tiny_config().backbone_config
    return TableTransformerForObjectDetection(TableTransformerConfig(backbone_config=backbone, **TINY, id2label=NAMES))


def yolos() -> YolosForObjectDetection:
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=[64, 64],
        patch_size=16, num_detection_tokens=6, id2label=NAMES,
    )  # fmt: skip
    return YolosForObjectDetection(config)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    table_transformer().save_pretrained(tmp_path / "start")
    DetrImageProcessor(size={"max_height": 64, "max_width": 64}).save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.mark.parametrize("name", sorted(CRITERIA))
@pytest.mark.parametrize(("build", "layers"), [(table_transformer, TINY["decoder_layers"]), (yolos, 1)])
def test_every_criterion_trains_them(name: str, build: Any, layers: int) -> None:
    model = build().train()
    attached = attach_criterion(model, CRITERIA[name]())
    outputs = model(**batch())
    assert attached.last is not None
    assert attached.last[0].num_layers == layers
    torch.testing.assert_close(attached.last[0].logits[-1], outputs.logits)
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.class_labels_classifier.parameters())


@pytest.mark.parametrize("build", [table_transformer, yolos])
def test_the_default_criterion_is_their_stock_loss(build: Any) -> None:
    ours, theirs = build().eval(), build().eval()
    attach_criterion(ours, CRITERIA["detr"]())
    values, expected = (
        ours(**batch()).loss_dict,
        theirs(**batch()).loss_dict,
    )
    for name in ("loss_ce", "loss_bbox", "loss_giou"):
        torch.testing.assert_close(values[name], expected[name], rtol=1e-5, atol=1e-5)


def test_the_head_of_a_yolos_takes_new_classes() -> None:
    model = yolos()
    before = model.class_labels_classifier.layers[-1].weight.detach().clone()
    fit_labels(model, ["owl", "elk"])
    after = model.class_labels_classifier.layers[-1].weight
    assert after.shape == (3, 32)
    assert torch.equal(after[0], before[2])
    assert torch.equal(after[-1], before[-1])
    assert model(PIXELS).logits.shape == (2, 6, 3)


def test_a_table_transformer_trains_and_is_saved_as_one(checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint, tmp_path / "run", num_train_epochs=1)
    trainer.train()
    saved = tmp_path / "run"
    model, _ = load_model(str(saved))
    assert isinstance(model, TableTransformerForObjectDetection)
    first = next(name for name, _ in model.named_parameters())
    assert family_of(model).part_of(first).name == "backbone.stem"
    start = load_model(str(checkpoint))[0].state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in model.state_dict().items() if name in start)
    assert Detector.load(str(saved)).names[0] == "gear"


SIGMOID = ["conditional_detr", "dab-detr", "deformable_detr", "d_fine", "lw_detr", "rf_detr", "rt_detr", "rt_detr_v2"]


@pytest.mark.parametrize("kind", SIGMOID)
def test_a_family_by_sigmoid_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    with pytest.raises(InputError, match=r"(DETR|FINE)\S* is not supported.* Use DETR"):
        load_model(str(tmp_path))


def test_recipes_refuse_a_yolos_with_a_remedy(tmp_path: Path) -> None:
    yolos().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == "yolos"
    with pytest.raises(InputError, match="attach_criterion"):
        load_model(str(tmp_path))
