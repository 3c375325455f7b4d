"""Checkpoints with timm's ResNet, loaded without timm: equal to a ResNet written under timm's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    PreTrainedModel,
    ResNetConfig,
    TableTransformerForObjectDetection,
)
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from detr_ft.errors import InputError
from detr_ft.models.build import build_model
from detr_ft.models.load import load_model
from detr_ft.models.save import save_as_stock
from detr_ft.models.timm import freeze_timm_norms, without_legacy_fields

BEFORE = "model.backbone.conv_encoder.model."


class Block(nn.Module):
    """A block of ResNet (He et al., 2016) under timm's names; `first` and `dilation` are those of the 3x3 convolutions."""

    def __init__(self, inside: int, width: int, deep: bool, stride: int, first: int, dilation: int) -> None:
        super().__init__()
        out = 4 * width if deep else width

        def wide(inside: int, stride: int, dilation: int) -> nn.Conv2d:
            return nn.Conv2d(inside, width, 3, stride, dilation, dilation, bias=False)

        if deep:
            self.conv1, self.conv2 = nn.Conv2d(inside, width, 1, bias=False), wide(width, stride, first)
            self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), DetrFrozenBatchNorm2d(out)
        else:
            self.conv1, self.conv2 = wide(inside, stride, first), wide(width, 1, dilation)
        self.bn1, self.bn2 = DetrFrozenBatchNorm2d(width), DetrFrozenBatchNorm2d(width)
        self.deep, self.downsample = deep, None
        if stride > 1 or inside != out:
            self.downsample = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), DetrFrozenBatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.deep:
            y = self.bn3(self.conv3(y.relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """As timm's `features_only`: dilation takes the stride of the last stage, whose first block keeps a dilation of 1."""

    def __init__(self, deep: bool, depths: list[int], dilated: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), DetrFrozenBatchNorm2d(64)
        inside = 64
        for stage, depth in enumerate(depths):
            width, last = 64 * 2**stage, dilated and stage == 3
            blocks = []
            for place in range(depth):
                stride = 2 if place == 0 and stage > 0 and not last else 1
                dilation = 2 if last else 1
                blocks.append(Block(inside, width, deep, stride, 1 if place == 0 else dilation, dilation))
                inside = 4 * width if deep else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x


def checkpoint(
    folder: Path,
    name: str,
    old_kwargs: bool = False,
    dilated: bool = False,
    kind: type[PreTrainedModel] = DetrForObjectDetection,
) -> ResNet:
    """A checkpoint of a tiny DETR on timm's ResNet, as the Hub has them, and its backbone."""
    torch.manual_seed(0)
    deep, depths = {"resnet18": (False, [2, 2, 2, 2]), "resnet50": (True, [3, 4, 6, 3])}[name]
    backbone = ResNet(deep, depths, dilated)
    for value in backbone.state_dict().values():
        if value.ndim == 1:
            value.uniform_(0.5, 1.0)
    labels = {0: "cat", 1: "dog"}
    shape = ResNetConfig(
        layer_type="bottleneck" if deep else "basic",
        depths=depths,
        hidden_sizes=[256, 512, 1024, 2048] if deep else [64, 128, 256, 512],
        out_features=["stage4"],
    )
    config = kind.config_class(backbone_config=shape, id2label=labels, label2id={"cat": 0, "dog": 1}, **TINY)
    kind(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights = {key: value for key, value in weights.items() if not key.startswith(BEFORE)}
    weights |= {BEFORE + key: value.clone() for key, value in backbone.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    del written["backbone_config"]
    written |= {"backbone": name, "use_timm_backbone": True, "use_pretrained_backbone": True, "dilation": dilated}
    if old_kwargs:
        written |= {"backbone_config": None, "backbone_kwargs": {"in_chans": 3, "out_indices": [1, 2, 3, 4]}}
    (folder / "config.json").write_text(json.dumps(written))
    DetrImageProcessor(size={"max_height": 64, "max_width": 64}).save_pretrained(folder)
    return backbone.eval()


def features(model: Any, pixels: Tensor) -> Tensor:
    mask = torch.ones(len(pixels), *pixels.shape[-2:], dtype=torch.long)
    backbone = model.model.backbone
    inner = backbone.conv_encoder if isinstance(model, TableTransformerForObjectDetection) else backbone
    given: Tensor = inner(pixels, mask)[-1][0]
    return given


@pytest.mark.parametrize(
    ("name", "old_kwargs", "dilated"),
    [("resnet18", False, False), ("resnet50", True, False), ("resnet50", False, True), ("resnet18", True, True)],
)
@pytest.mark.parametrize("kind", [DetrForObjectDetection, TableTransformerForObjectDetection])
@torch.no_grad()
def test_the_backbone_is_the_same_function(
    tmp_path: Path, name: str, old_kwargs: bool, dilated: bool, kind: type[PreTrainedModel]
) -> None:
    backbone = checkpoint(tmp_path / "hub", name, old_kwargs, dilated, kind).double()
    model = load_model(str(tmp_path / "hub"))[0].double().eval()
    pixels = torch.randn(2, 3, 96, 128, dtype=torch.float64)
    expected = backbone(pixels)
    assert expected.shape[-2:] == ((6, 8) if dilated else (3, 4))
    torch.testing.assert_close(features(model, pixels), expected, rtol=1e-9, atol=1e-9)


def test_the_saved_model_is_native_and_the_same(tmp_path: Path) -> None:
    checkpoint(tmp_path / "hub", "resnet18")
    model, _ = load_model(str(tmp_path / "hub"))
    save_as_stock(model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["backbone_config"]["model_type"] == "resnet"
    stock, loading = DetrForObjectDetection.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, theirs = model.state_dict(), stock.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_dilation_is_saved_where_transformers_has_it(tmp_path: Path) -> None:
    """A native config has no place for it: from there, plain transformers would load another function."""
    checkpoint(tmp_path / "hub", "resnet18", dilated=True)
    model, processor = load_model(str(tmp_path / "hub"))
    save_as_stock(model, tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    config = AutoConfig.from_pretrained(tmp_path / "saved")
    assert config.backbone_config.model_type == "timm_backbone"
    assert (config.backbone_config.backbone, config.backbone_config.output_stride) == ("resnet18", 16)
    assert config.architectures == ["DetrForObjectDetection"]
    before, after = load_file(tmp_path / "hub/model.safetensors"), load_file(tmp_path / "saved/model.safetensors")
    backbone = {key.removeprefix(BEFORE): value for key, value in before.items() if key.startswith(BEFORE)}
    assert len(backbone) > 50
    for key, value in backbone.items():
        assert torch.equal(after[f"model.backbone.model.{key}"], value), key
    again = load_model(str(tmp_path / "saved"))[0].eval()
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(features(again, pixels), features(model.eval(), pixels))


def test_a_native_config_with_dilation_is_dilated(tmp_path: Path) -> None:
    """The Hub's DC5 checkpoints have such configs; plain transformers ignores the entry."""
    checkpoint(tmp_path / "hub", "resnet18", dilated=True)
    model, processor = load_model(str(tmp_path / "hub"))
    model.save_pretrained(tmp_path / "native")
    processor.save_pretrained(tmp_path / "native")
    again, _ = load_model(str(tmp_path / "native"))
    assert features(again, torch.randn(1, 3, 64, 64)).shape[-2:] == (4, 4)


def test_another_backbone_of_timm_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint(tmp_path, "resnet18")
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | {"backbone": "mobilenetv3_large_100"}))
    monkeypatch.setattr("detr_ft.models.load.timm_available", lambda: False)
    with pytest.raises(InputError, match="needs timm"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "written",
    [
        {"backbone": "resnet50", "use_timm_backbone": True},
        {"backbone_config": {"model_type": "resnet"}, "backbone_kwargs": {"in_chans": 3}},
        {"backbone": "microsoft/resnet-50", "use_timm_backbone": False, "backbone_kwargs": {"out_indices": [4]}},
    ],
)
def test_configs_without_legacy_fields_are_left_alone(written: dict[str, Any]) -> None:
    assert without_legacy_fields(written) == written


def test_a_weight_without_a_place_is_an_error(tmp_path: Path) -> None:
    checkpoint(tmp_path, "resnet18")
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.encoder.layers.7.self_attn.q_proj.weight"] = torch.zeros(32, 32)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"not in the model.*layers\.7"):
        load_model(str(tmp_path))


def test_a_dilated_table_transformer_comes_back_dilated(tmp_path: Path) -> None:
    checkpoint(tmp_path / "hub", "resnet18", dilated=True, kind=TableTransformerForObjectDetection)
    model, processor = load_model(str(tmp_path / "hub"))
    save_as_stock(model, tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again, _ = load_model(str(tmp_path / "saved"))
    pixels = torch.randn(1, 3, 64, 64)
    assert isinstance(again, TableTransformerForObjectDetection)
    assert torch.equal(features(again.eval(), pixels), features(model.eval(), pixels))


@pytest.mark.parametrize(("backbone", "frozen"), [("mobilenetv2_100", True), ("resnet50", False)])
def test_norms_that_hold_an_activation_are_left_to_timm(backbone: str, frozen: bool) -> None:
    config = DetrConfig(
        backbone_config={"model_type": "timm_backbone", "backbone": backbone, "out_indices": [1, 2, 3, 4]}
    )
    freeze_timm_norms(config)
    assert config.backbone_config.freeze_batch_norm_2d is frozen


def test_a_backbone_of_timm_has_its_own_activations(tmp_path: Path) -> None:
    """With timm installed: features equal those of the backbone alone, and lie between zero and six."""
    pytest.importorskip("timm", exc_type=ImportError)
    shape = {"model_type": "timm_backbone", "backbone": "mobilenetv2_100", "out_indices": [1, 2, 3, 4]}
    model, processor = build_model({**TINY, "backbone_config": shape}, ["cat", "dog"], 64)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load_model(str(tmp_path))
    pixels = torch.randn(1, 3, 64, 64)
    for one in (model.eval(), again.eval()):
        kinds = {type(module).__name__ for module in one.model.backbone.modules()}
        assert "FrozenBatchNormAct2d" in kinds
        assert features(one, pixels).isfinite().all()
    assert torch.equal(features(model, pixels), features(again, pixels))
