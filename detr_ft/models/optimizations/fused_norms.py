"""Frozen norms fused into the convolutions before them, also during training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut

from detr_ft.models.families import find_family

_EPSILON = 1e-5  # of the frozen norms of transformers


class FusedConvLayer(ResNetConvLayer):
    """A layer of convolution, frozen norm and activation, in two passes over the activations."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        activated: Tensor = self.activation(_fused(self.convolution, self.normalization, hidden_states))
        return activated


class FusedShortCut(ResNetShortCut):
    """A shortcut of convolution and frozen norm, in one pass over the activations."""

    def forward(self, input: Tensor) -> Tensor:
        return _fused(self.convolution, self.normalization, input)


_FUSED: dict[type, type] = {ResNetConvLayer: FusedConvLayer, ResNetShortCut: FusedShortCut}
_STOCK = {fused: stock for stock, fused in _FUSED.items()}


def apply(model: nn.Module) -> int:
    """Fuse every frozen norm of a native ResNet into its convolution, in place, and return their number.

    The same function up to rounding, with one pass over the activations instead of three, and without the fp32 copies that
    a frozen norm makes of them under bf16 autocast. Modules, weights and gradients are those of the separate pair, so
    nothing has to be reverted to save. Other convolutions, norms that train and models of other families stay as they are.
    """
    family = find_family(model)
    if family is None or "fused_norms" not in family.supports:
        return 0
    layers = [
        layer
        for layer in model.modules()
        if type(layer) in _FUSED
        and type(layer.convolution) is nn.Conv2d
        and type(layer.normalization) is family.frozen_norm
    ]
    for layer in layers:
        layer.__class__ = _FUSED[type(layer)]
    return len(layers)


def revert(model: nn.Module) -> None:
    """Compute convolutions and norms separately again, in place."""
    for layer in model.modules():
        if type(layer) in _STOCK:
            layer.__class__ = _STOCK[type(layer)]


def _fused(convolution: Any, norm: Any, input: Tensor) -> Tensor:
    """Convolve with the scale of the norm in the weights and its shift in the bias."""
    scale = norm.weight * (norm.running_var + _EPSILON).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    weight = convolution.weight * scale[:, None, None, None]
    return functional.conv2d(
        input, weight, shift, convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    )
