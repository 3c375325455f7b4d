"""Checkpoints whose backbone is timm's ResNet, on transformers' own one: configs, names of weights and dilation, there and back.

The Hub's DETR checkpoints are such ones, and timm asks for torchvision. The two ResNets are the same function; theirs
alone has dilation (DC5: Carion et al., ECCV 2020, section 4.1), which is given to the native one here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from typing import Any

from torch import Tensor, nn
from transformers import DetrConfig, PreTrainedConfig, ResNetConfig
from transformers.models.resnet.modeling_resnet import ResNetEncoder

_RESNETS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
_WIDTHS = {"basic": [64, 128, 256, 512], "bottleneck": [256, 512, 1024, 2048]}
_BEFORE = r"backbone(?:\.conv_encoder)?\.model\."  # what the backbone's weights are under, in old and new checkpoints


def _names() -> dict[str, str]:
    """For each place of timm's names, up to the block's number, the native one."""
    names = {r"conv1\.": "embedder.embedder.convolution.", r"bn1\.": "embedder.embedder.normalization."}
    for stage in range(4):
        theirs, ours = rf"layer{stage + 1}\.(\d+)\.", rf"encoder.stages.{stage}.layers.\1."
        for place in range(3):
            names[rf"{theirs}conv{place + 1}\."] = rf"{ours}layer.{place}.convolution."
            names[rf"{theirs}bn{place + 1}\."] = rf"{ours}layer.{place}.normalization."
        names[rf"{theirs}downsample\.0\."] = rf"{ours}shortcut.convolution."
        names[rf"{theirs}downsample\.1\."] = rf"{ours}shortcut.normalization."
    return names


def to_native(config: PreTrainedConfig) -> dict[str, str]:
    """Timm's names to native ones, as `from_pretrained(key_mapping=...)` takes them."""
    before = "backbone.model." if isinstance(config, DetrConfig) else "backbone.conv_encoder.model."
    return {_BEFORE + theirs: before + ours for theirs, ours in _names().items()}


def wants_timm(config: PreTrainedConfig) -> bool:
    """Whether a checkpoint's backbone is timm's."""
    return getattr(_backbone(config), "model_type", None) == "timm_backbone"


def without_old_fields(written: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json in whose place of `backbone_config` there are the `backbone` and `backbone_kwargs` of older releases.

    transformers asks the Hub what such a backbone may be, each time that the config is read; it is timm's, as those say.
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
        "output_stride": kwargs.get("output_stride", 16 if written.get("dilation") else None),
        "features_only": True,
        "use_pretrained_backbone": False,
    }
    return {name: value for name, value in written.items() if name not in old} | {"backbone_config": backbone}


def timm_works() -> bool:
    """Whether timm can be imported: it may be there, and torchvision not, or built for another torch."""
    try:
        import_module("timm")
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def natively(config: PreTrainedConfig) -> PreTrainedConfig | None:
    """The config on a native ResNet of the same shape; None where the backbone is none of the plain ResNets."""
    # A name may say which training its weights are of: resnet50.a1_in1k.
    name = str(config.backbone_config.backbone).rsplit("/", 1)[-1].partition(".")[0]
    if name not in _RESNETS:
        return None
    kind, depths = _RESNETS[name]
    native = deepcopy(config)
    native.dilation = is_dilated(config)
    native.backbone_config = ResNetConfig(
        num_channels=config.backbone_config.num_channels,
        embedding_size=64,
        hidden_sizes=_WIDTHS[kind],
        depths=depths,
        layer_type=kind,
        out_features=["stage4"],
    )
    return native


def keep_activations(config: PreTrainedConfig) -> None:
    """Let timm freeze the norms of its backbone itself, in place, unless that is a plain ResNet.

    Elsewhere a norm may hold the activation as well (`BatchNormAct2d`: MobileNet, EfficientNet), and DETR would put a plain frozen
    norm in its place, without a word: features then grow without bounds.
    """
    if wants_timm(config) and natively(config) is None:
        config.backbone_config.freeze_batch_norm_2d = True


def is_dilated(config: PreTrainedConfig) -> bool:
    """Whether the last stage has dilation in the place of its stride (DC5)."""
    return bool(getattr(config, "dilation", False)) or getattr(_backbone(config), "output_stride", None) == 16


def dilate(backbone: nn.Module) -> None:
    """Take the stride out of the last stage of a backbone's native ResNet and dilate what follows, in place, as the authors' DC5 has it.

    The first 3x3 convolution of the stage keeps its dilation of 1, as in torchvision and timm.
    """
    (encoder,) = (one for one in backbone.modules() if isinstance(one, ResNetEncoder))
    convolutions = [one for one in encoder.stages[-1].modules() if isinstance(one, nn.Conv2d)]
    for convolution in convolutions:
        convolution.stride = (1, 1)
    for convolution in [one for one in convolutions if one.kernel_size == (3, 3)][1:]:
        convolution.dilation = convolution.padding = (2, 2)


def in_timm_layout(
    config: PreTrainedConfig, weights: Mapping[str, Tensor]
) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
    """A native model's config and weights as timm's: the only form in which transformers itself knows dilation."""
    kind, depths = config.backbone_config.layer_type, list(config.backbone_config.depths)
    theirs = deepcopy(config)
    (name,) = (name for name, one in _RESNETS.items() if one == (kind, depths))
    theirs.backbone_config = _timm_config(name, config)
    return theirs, {_timm_name(key): value for key, value in weights.items()}


def is_plain_resnet(config: PreTrainedConfig) -> bool:
    """Whether the native backbone has a name in timm."""
    backbone = _backbone(config)
    return getattr(backbone, "model_type", None) == "resnet" and any(
        (backbone.layer_type, list(backbone.depths)) == one and list(backbone.hidden_sizes) == _WIDTHS[one[0]]
        for one in _RESNETS.values()
    )


def _backbone(config: PreTrainedConfig) -> Any:
    return getattr(config, "backbone_config", None)  # sisters that are transformers alone have none


def _timm_config(name: str, config: PreTrainedConfig) -> Any:
    from transformers import TimmBackboneConfig

    return TimmBackboneConfig(
        backbone=name,
        num_channels=config.backbone_config.num_channels,
        features_only=True,
        out_indices=[1, 2, 3, 4],
        output_stride=16 if config.dilation else None,
    )


def _timm_name(key: str) -> str:
    key = re.sub(r"model\.embedder\.embedder\.convolution\.", "model.conv1.", key)
    key = re.sub(r"model\.embedder\.embedder\.normalization\.", "model.bn1.", key)
    match = re.match(
        r"(.*backbone\.(?:conv_encoder\.)?model\.)encoder\.stages\.(\d)\.layers\.(\d+)\.(layer\.(\d)|shortcut)\.(convolution|normalization)\.(.*)",
        key,
    )
    if match is None:
        return key
    before, stage, block, _, place, what, rest = match.groups()
    if place is None:
        own = f"downsample.{0 if what == 'convolution' else 1}"
    else:
        own = f"{'conv' if what == 'convolution' else 'bn'}{int(place) + 1}"
    return f"{before}layer{int(stage) + 1}.{block}.{own}.{rest}"
