"""Frozen norms folded into the convolutions before them, while training as well."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut
from transformers.models.table_transformer.modeling_table_transformer import TableTransformerFrozenBatchNorm2d

_EPSILON = 1e-5  # DetrFrozenBatchNorm2d's


class FoldedConv2d(nn.Conv2d):
    """A convolution that does the frozen norm after it: the scale goes to the weights, the shift to the bias.

    The weights that train stay those before the scale, so that gradients, decay and what is saved are those of the unfolded pair.
    """

    norm: PassedNorm

    def forward(self, input: Tensor) -> Tensor:
        norm = self.norm
        scale = norm.weight * (norm.running_var + _EPSILON).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        weight = self.weight * scale[:, None, None, None]
        return functional.conv2d(input, weight, shift, self.stride, self.padding, self.dilation, self.groups)


class PassedNorm(DetrFrozenBatchNorm2d):
    """A frozen norm that the convolution before it has already done."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def fold_norms(model: nn.Module) -> int:
    """Fold every frozen norm of a native ResNet into its convolution, in place; answers how many there were.

    The same function to rounding, with one pass over the activations instead of three, and without the fp32 copies that a
    frozen norm makes of them under bf16 autocast. Names and values of `state_dict()` stay as they are: nothing has to be
    unfolded to save. Convolutions of other kinds, and norms that learn, are left alone.
    """
    folded = 0
    for layer in model.modules():
        if not isinstance(layer, ResNetConvLayer | ResNetShortCut):
            continue
        convolution, norm = layer.convolution, layer.normalization
        if type(convolution) is not nn.Conv2d or type(norm) not in (
            DetrFrozenBatchNorm2d,
            TableTransformerFrozenBatchNorm2d,
        ):
            continue
        convolution.__class__, norm.__class__ = FoldedConv2d, PassedNorm
        convolution.__dict__["norm"] = norm  # beside the registered modules: its tensors stay where they were
        folded += 1
    return folded
