from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import DetrForObjectDetection

from detr_ft.errors import InputError
from detr_ft.models.freeze import set_trainable
from detr_ft.training.optimizer import build_optimizer, check_rates, rates, training_table
from detr_ft.training.settings import OptimSettings, TrainSettings

RATES = {
    "backbone_learning_rate": 1e-5,
    "encoder_learning_rate": 2e-5,
    "decoder_learning_rate": 3e-5,
    "heads_learning_rate": 4e-5,
}


class Plain(nn.Module):
    """Children by name, and nothing to compute."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class DetrOfParts(DetrForObjectDetection):
    """A DETR by its class and the names of its parameters alone."""

    def __init__(self, **children: nn.Module) -> None:
        nn.Module.__init__(self)
        for name, child in children.items():
            self.add_module(name, child)


def timm_model() -> DetrForObjectDetection:
    """The names of a DETR whose backbone is timm's, as transformers unwraps it."""

    def layer() -> nn.Module:
        return nn.Sequential(Plain(conv1=nn.Conv2d(2, 2, 1, bias=False), bn1=nn.BatchNorm2d(2)))

    backbone = Plain(
        conv1=nn.Conv2d(3, 2, 7, bias=False), bn1=nn.BatchNorm2d(2),
        layer1=layer(), layer2=layer(), layer3=layer(), layer4=layer(),
    )  # fmt: skip

    def blocks(number: int) -> nn.ModuleList:
        return nn.ModuleList(Plain(fc1=nn.Linear(2, 2), final_layer_norm=nn.LayerNorm(2)) for _ in range(number))

    body = Plain(
        backbone=Plain(model=backbone), input_projection=nn.Conv2d(2, 2, 1),
        query_position_embeddings=nn.Embedding(4, 2),
        encoder=Plain(layers=blocks(2)), decoder=Plain(layers=blocks(3), layernorm=nn.LayerNorm(2)),
    )  # fmt: skip
    return DetrOfParts(
        model=body,
        class_labels_classifier=nn.Linear(2, 3),
        bbox_predictor=Plain(layers=nn.ModuleList([nn.Linear(2, 4)])),
    )


def settings(**values: Any) -> TrainSettings:
    return TrainSettings(**{"output_dir": "x", "learning_rate": 1e-4, "weight_decay": 0.1} | values)


def of_each(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter that trains, in one group each."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [
        (names[id(parameter)], (group["lr"], group["weight_decay"]))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("timm", [False, True], ids=["native", "timm"])
def test_each_section_learns_at_its_own_rate(tiny_model: DetrForObjectDetection, timm: bool) -> None:
    model = timm_model() if timm else tiny_model
    set_trainable(model, [])
    groups = of_each(model, build_optimizer(model, settings(), OptimSettings(**RATES)))
    expected = {
        "model.backbone": 1e-5, "model.input_projection": 2e-5, "model.encoder": 2e-5, "model.query": 3e-5,
        "model.decoder": 3e-5, "class_labels": 4e-5, "bbox_predictor": 4e-5,
    }  # fmt: skip
    assert set(groups) == {name for name, _ in model.named_parameters()}
    for name, (rate, _) in groups.items():
        assert rate == next(rate for prefix, rate in expected.items() if name.startswith(prefix)), name


@pytest.mark.parametrize("timm", [False, True], ids=["native", "timm"])
def test_norms_biases_and_queries_do_not_decay(tiny_model: DetrForObjectDetection, timm: bool) -> None:
    model = timm_model() if timm else tiny_model
    set_trainable(model, [])
    model.register_module("norm", nn.LayerNorm((2, 2)))  # of two dimensions, and a norm all the same
    for name, (_, decay) in of_each(model, build_optimizer(model, settings(), OptimSettings())).items():
        spared = name.endswith("bias") or "norm" in name or "bn1" in name or "query" in name
        assert decay == (0.0 if spared else 0.1), name


def test_groups_are_few_named_and_end_with_the_heads(tiny_model: DetrForObjectDetection) -> None:
    def groups(decay: float = 0.1, **optim: Any) -> dict[str, float]:
        return rates(build_optimizer(tiny_model, settings(weight_decay=decay), OptimSettings(**optim)))

    set_trainable(tiny_model, [])
    everything = "backbone+encoder+decoder+heads"
    assert list(groups().values()) == [1e-4, 1e-4]
    assert {frozenset(name.removesuffix(" without decay").split("+")) for name in groups()} <= {
        frozenset(everything.split("+")),
        frozenset(["encoder", "decoder", "heads"]),  # the tiny backbone's norms are frozen, so all of it decays
    }
    assert len(groups(decay=0.0)) == 1
    assert list(groups(**RATES).items()) == [
        ("backbone", 1e-5),
        ("encoder", 2e-5),
        ("encoder without decay", 2e-5),
        ("decoder", 3e-5),
        ("decoder without decay", 3e-5),
        ("heads", 4e-5),
        ("heads without decay", 4e-5),
    ]
    # The last group holds the heads, whatever they share it with: a log that shows one rate shows theirs.
    assert "heads" in list(groups(encoder_learning_rate=5e-4, decoder_learning_rate=6e-4))[-1]


@pytest.mark.parametrize("timm", [False, True], ids=["native", "timm"])
def test_layers_further_from_the_heads_learn_more_slowly(tiny_model: DetrForObjectDetection, timm: bool) -> None:
    model = timm_model() if timm else tiny_model
    layers = {
        "class_labels_classifier.weight": 0,
        "model.decoder.layernorm.weight": 0,
        "model.decoder.layers.2.": 1,
        "model.decoder.layers.0.": 3,
        "model.query_position_embeddings.weight": 3,
    }
    layers |= (
        {"model.encoder.layers.1.": 4, "model.encoder.layers.0.": 5, "model.input_projection.weight": 5,
         "model.backbone.model.layer4.": 6, "model.backbone.model.layer1.": 9, "model.backbone.model.conv1.weight": 10}
        if timm
        else {"model.encoder.layers.0.": 4, "model.backbone.model.encoder.stages.1.": 5,
              "model.backbone.model.encoder.stages.0.": 6, "model.backbone.model.embedder.": 7}
    )  # fmt: skip
    # A layer that is frozen stands between all the same.
    set_trainable(model, ["backbone.stage2"])
    groups = of_each(
        model, build_optimizer(model, settings(), OptimSettings(layer_decay=0.5, decoder_learning_rate=1e-3))
    )
    for prefix, below in layers.items():
        rates_of_layer = {rate for name, (rate, _) in groups.items() if name.startswith(prefix)}
        if prefix == "model.backbone.model.encoder.stages.1.":
            assert not rates_of_layer
            continue
        base = 1e-3 if ".decoder." in prefix or "query" in prefix else 1e-4
        assert rates_of_layer == {base * 0.5**below}, prefix


def test_groups_under_a_layer_decay_have_names_of_their_own(tiny_model: DetrForObjectDetection) -> None:
    set_trainable(tiny_model, [])
    optimizer = build_optimizer(tiny_model, settings(), OptimSettings(layer_decay=0.5, heads_learning_rate=1e-3))
    names = [group["name"] for group in optimizer.param_groups]
    assert len(set(names)) == len(names)
    assert "backbone.stage1" in names
    assert "encoder.0 without decay" in names
    assert "decoder.norm without decay" in names
    assert names[-2:] == ["heads", "heads without decay"]


def test_a_rate_of_a_frozen_or_missing_section_is_an_error(tiny_model: DetrForObjectDetection) -> None:
    set_trainable(tiny_model, ["encoder", "class_head", "box_head"])
    with pytest.raises(InputError) as caught:
        check_rates(tiny_model, OptimSettings(**RATES))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "optim.encoder_learning_rate",
        "optim.heads_learning_rate",
    ]
    assert "encoder is frozen (model.freeze)" in caught.value.problems[0]
    model = timm_model()
    model.model.decoder = nn.Identity()
    with pytest.raises(InputError, match=r"optim\.decoder_learning_rate: the model has no decoder"):
        check_rates(model, OptimSettings(decoder_learning_rate=1e-4))
    set_trainable(tiny_model, ["backbone.stem"])  # a part of a section may be frozen
    check_rates(tiny_model, OptimSettings(**RATES))


def test_the_table_has_trained_parts_and_rates(tiny_model: DetrForObjectDetection) -> None:
    set_trainable(tiny_model, ["backbone.stem", "encoder"])
    optimizer = build_optimizer(tiny_model, settings(), OptimSettings(backbone_learning_rate=1e-5, layer_decay=0.5))
    cells = [line.split() for line in training_table(tiny_model, optimizer).splitlines()]
    assert cells[0] == ["part", "train", "of", "learning", "rate", "weight", "decay"]
    rows = {row[0]: row[1:] for row in cells[1:]}
    assert rows["backbone.stem"] == ["0", "1,176", "-", "-"]
    assert rows["backbone.stage1"] == ["1,152", "1,152", "1.56e-07", "0.1"]
    assert rows["encoder"][0] == "0"
    assert rows["decoder"][2:] == ["1.25e-05", "to", "0.0001", "0", "to", "0.1"]
    assert rows["queries"][2:] == ["1.25e-05", "0"]
    assert rows["class_head"] == ["132", "132", "0.0001", "0", "to", "0.1"]


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_a_layer_decay_is_at_most_one(value: float) -> None:
    with pytest.raises(ValueError, match="layer_decay"):
        OptimSettings(layer_decay=value)
