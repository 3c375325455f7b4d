"""Checkpoints with a ResNet of timm: load it as that of transformers, save it under the names of timm.

The Hub's DETR checkpoints use timm, which needs torchvision. The two ResNets are the same function, but only timm's has
dilation (DC5: Carion et al., ECCV 2020, section 4.1), which is added to the native one here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, ResNetConfig, TimmBackboneConfig
from transformers.models.resnet.modeling_resnet import ResNetEncoder

from detr_ft.models.families import find_family

_RESNETS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
_WIDTHS = {"basic": [64, 128, 256, 512], "bottleneck": [256, 512, 1024, 2048]}
_BACKBONE_PREFIX = r"backbone(?:\.conv_encoder)?\.model\."  # of weights in old and new checkpoints
_DC5_OUTPUT_STRIDE = 16


def native_weight_names(config: PreTrainedConfig) -> dict[str, str]:
    """Return native names by patterns of timm's names, for `from_pretrained(key_mapping=...)`."""
    family = find_family(config)
    # Families without a description have conv_encoder, as Table Transformer has.
    path = family.backbone if family and family.backbone else "model.backbone.conv_encoder.model"
    prefix = path.removeprefix("model.") + "."
    return {_BACKBONE_PREFIX + old: prefix + new for old, new in _native_names().items()}


def _native_names() -> dict[str, str]:
    """Return a pattern for each prefix of timm's names, up to the block's number, with the native prefix."""
    names = {r"conv1\.": "embedder.embedder.convolution.", r"bn1\.": "embedder.embedder.normalization."}
    for stage in range(4):
        old, new = rf"layer{stage + 1}\.(\d+)\.", rf"encoder.stages.{stage}.layers.\1."
        for layer in range(3):
            names[rf"{old}conv{layer + 1}\."] = rf"{new}layer.{layer}.convolution."
            names[rf"{old}bn{layer + 1}\."] = rf"{new}layer.{layer}.normalization."
        names[rf"{old}downsample\.0\."] = rf"{new}shortcut.convolution."
        names[rf"{old}downsample\.1\."] = rf"{new}shortcut.normalization."
    return names


def uses_timm(config: PreTrainedConfig) -> bool:
    """Return whether the backbone is a model of timm."""
    return getattr(_backbone(config), "model_type", None) == "timm_backbone"


def without_legacy_fields(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with `backbone_config` in place of the backbone fields of older releases.

    With the old fields transformers sends a request to the Hub each time it reads the config; they always name a timm
    backbone.
    """
    kwargs = written.get("backbone_kwargs") or {}
    if written.get("backbone_config") is not None or not (kwargs and written.get("use_timm_backbone", True)):
        return dict(written)
    old = ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone")
    backbone = {
        "model_type": "timm_backbone",
        "backbone": written.get("backbone") or "resnet50",
        "num_channels": kwargs.get("in_chans", 3),
        "out_indices": kwargs.get("out_indices", [1, 2, 3, 4]),
        "output_stride": kwargs.get("output_stride", _DC5_OUTPUT_STRIDE if written.get("dilation") else None),
        "features_only": True,
        "use_pretrained_backbone": False,
    }
    return {name: value for name, value in written.items() if name not in old} | {"backbone_config": backbone}


def timm_available() -> bool:
    """Return whether timm can be imported; it may be installed without torchvision, or for another torch."""
    try:
        import_module("timm")
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def native_config(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """Return the config with a native ResNet of the same shape, None for other backbones."""
    # A name may end in the training of its weights: resnet50.a1_in1k.
    name = str(config.backbone_config.backbone).rsplit("/", 1)[-1].partition(".")[0]
    if name not in _RESNETS:
        return None
    layer_type, depths = _RESNETS[name]
    native = deepcopy(config)
    native.dilation = is_dilated(config)
    native.backbone_config = ResNetConfig(
        num_channels=config.backbone_config.num_channels,
        embedding_size=64,
        hidden_sizes=_WIDTHS[layer_type],
        depths=depths,
        layer_type=layer_type,
        out_features=["stage4"],
    )
    return native


def freeze_timm_norms(config: PreTrainedConfig) -> None:
    """Let timm freeze the norms of its backbone, in place, unless it is a plain ResNet.

    In other backbones a norm may include the activation (`BatchNormAct2d`: MobileNet, EfficientNet). DETR would silently
    replace it by a plain frozen norm, and features would grow without bound.
    """
    if uses_timm(config) and native_config(config) is None:
        config.backbone_config.freeze_batch_norm_2d = True


def is_dilated(config: PreTrainedConfig) -> bool:
    """Return whether the last stage has dilation instead of its stride (DC5)."""
    output_stride = getattr(_backbone(config), "output_stride", None)
    return bool(getattr(config, "dilation", False)) or output_stride == _DC5_OUTPUT_STRIDE


def dilate(backbone: nn.Module) -> None:
    """Replace the stride of the last stage of a native ResNet by dilation (DC5), in place.

    The first 3x3 convolution of the stage has a dilation of 1, as in torchvision and timm.
    """
    (encoder,) = (module for module in backbone.modules() if isinstance(module, ResNetEncoder))
    convolutions = [module for module in encoder.stages[-1].modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        convolution.stride = (1, 1)
    for convolution in [module for module in convolutions if module.kernel_size == (3, 3)][1:]:
        convolution.dilation = convolution.padding = (2, 2)


def to_timm_layout(
    config: PreTrainedConfig, weights: Mapping[str, Tensor]
) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
    """Return config and weights of a native model as timm's, where transformers implements dilation."""
    shape = config.backbone_config.layer_type, list(config.backbone_config.depths)
    converted = deepcopy(config)
    (name,) = (name for name, resnet in _RESNETS.items() if resnet == shape)
    converted.backbone_config = TimmBackboneConfig(
        backbone=name,
        num_channels=config.backbone_config.num_channels,
        features_only=True,
        out_indices=[1, 2, 3, 4],
        output_stride=_DC5_OUTPUT_STRIDE if config.dilation else None,
    )
    return converted, {_timm_name(key): value for key, value in weights.items()}


def is_plain_resnet(config: PreTrainedConfig) -> bool:
    """Return whether the native backbone has a name in timm."""
    backbone = _backbone(config)
    return getattr(backbone, "model_type", None) == "resnet" and any(
        (backbone.layer_type, list(backbone.depths)) == resnet and list(backbone.hidden_sizes) == _WIDTHS[resnet[0]]
        for resnet in _RESNETS.values()
    )


def _backbone(config: PreTrainedConfig) -> Any:
    return getattr(config, "backbone_config", None)  # families without a convolutional backbone have none


def _timm_name(key: str) -> str:
    key = re.sub(r"model\.embedder\.embedder\.convolution\.", "model.conv1.", key)
    key = re.sub(r"model\.embedder\.embedder\.normalization\.", "model.bn1.", key)
    match = re.match(
        r"(.*backbone\.(?:conv_encoder\.)?model\.)encoder\.stages\.(\d)\.layers\.(\d+)\.(layer\.(\d)|shortcut)\.(convolution|normalization)\.(.*)",
        key,
    )
    if match is None:
        return key
    prefix, stage, block, _, layer, kind, rest = match.groups()
    if layer is None:
        module = f"downsample.{0 if kind == 'convolution' else 1}"
    else:
        module = f"{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}"
    return f"{prefix}layer{int(stage) + 1}.{block}.{module}.{rest}"
