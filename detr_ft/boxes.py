"""Box formats and the IoU family, pairwise and paired. Any unit, as long as both boxes share it.

Everything is computed in at least fp32 and is finite, with finite gradients, for boxes of no area.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Below this a union or hull counts as empty. Fractions of an image are never this small unless they are degenerate.
_EMPTY = 1e-12
# The shortest side whose aspect ratio counts: the gradient of an angle grows as one over the side.
_THIN = 1e-4


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners: `[..., 4]` to `[..., 4]`, the unit stays."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size: `[..., 4]` to `[..., 4]`, the unit stays."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """COCO's top-left corner and size to corners: `[..., 4]` to `[..., 4]`, the unit stays."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners to COCO's top-left corner and size: `[..., 4]` to `[..., 4]`, the unit stays."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and area of the union of xyxy boxes that broadcast: `[..., 4]` and `[..., 4]` to twice `[...]`."""
    a, b = at_least_fp32(a), at_least_fp32(b)
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = overlap[..., 0] * overlap[..., 1]
    union = _area(a) + _area(b) - intersection
    return intersection / union.clamp(min=_EMPTY), union


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of xyxy boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`."""
    return iou_and_union(a, b)[0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU, -1 to 1, of xyxy boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Rezatofighi et al., CVPR 2019, algorithm 1: IoU - (hull - union) / hull.

    >>> giou(torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([2.0, 0.0, 4.0, 2.0])).item()  # side by side
    0.0
    """
    a, b = at_least_fp32(a), at_least_fp32(b)
    overlap, union = iou_and_union(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull_area = hull[..., 0] * hull[..., 1]
    return overlap - (hull_area - union) / hull_area.clamp(min=_EMPTY)


def diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU, -1 to 1, of xyxy boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Zheng et al., AAAI 2020, equation 7: IoU - (distance of the centres)^2 / (diagonal of the hull)^2.
    """
    a, b = at_least_fp32(a), at_least_fp32(b)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return iou(a, b) - apart.square().sum(-1) / hull.square().sum(-1).clamp(min=_EMPTY)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU, -2 to 1, of xyxy boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Zheng et al., AAAI 2020, equations 8 to 11: DIoU - alpha v, where v compares the aspect ratios and alpha, which
    carries no gradient, trades it against the overlap.
    """
    a, b = at_least_fp32(a), at_least_fp32(b)
    v = (_angle(a) - _angle(b)).square() * (4 / math.pi**2)
    with torch.no_grad():
        alpha = v / (1 - iou(a, b) + v).clamp(min=_EMPTY)
    return diou(a, b) - alpha * v


def pairwise(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Views of `a [N, 4]` and `b [M, 4]` that broadcast to every pair, `[N, M]`, in the functions above."""
    return a[..., :, None, :], b[..., None, :, :]


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _angle(boxes: Tensor) -> Tensor:
    """The angle of a box's diagonal, from its width over its height."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=_THIN).unbind(-1)
    return torch.atan2(width, height)


def at_least_fp32(values: Tensor) -> Tensor:
    """The same values in fp32, or in fp64 where they already are."""
    return values if values.dtype == torch.float64 else values.float()
