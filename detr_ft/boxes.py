"""Box formats, and the IoU family of cxcywh boxes in any common unit.

Values are computed in at least fp32. Values and gradients are finite also for boxes without area.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A smaller union or hull is degenerate, in fractions of an image as in pixels.
_MIN_AREA = 1e-12
# Shorter sides are raised to this in aspect ratios, because the gradient of an angle grows as one over the side.
_MIN_SIDE = 1e-4


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert center and size to corners: `[..., 4]` to `[..., 4]` in the same unit."""
    center, size = boxes.chunk(2, -1)
    half = 0.5 * size
    return torch.cat([center - half, center + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert corners to center and size: `[..., 4]` to `[..., 4]` in the same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert top-left corner and size (COCO) to corners: `[..., 4]` to `[..., 4]` in the same unit."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Convert corners to top-left corner and size (COCO): `[..., 4]` to `[..., 4]` in the same unit."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of cxcywh boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    >>> iou(torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([2.0, 1.0, 2.0, 2.0])).item()  # they overlap in half of each
    0.3333333432674408
    """
    return _overlap(_split(a), _split(b))[0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU, -1 to 1, of cxcywh boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Rezatofighi et al., CVPR 2019, algorithm 1: IoU - (hull - union) / hull.

    >>> giou(torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([3.0, 1.0, 2.0, 2.0])).item()  # side by side
    0.0
    """
    overlap, union, hull = _overlap(_split(a), _split(b))
    hull_area = _product(hull)
    return overlap - _ratio(hull_area - union, hull_area)


def diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU, -1 to 1, of cxcywh boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Zheng et al., AAAI 2020, equation 7: IoU - (distance of the centers)^2 / (diagonal of the hull)^2.
    """
    first, second = _split(a), _split(b)
    overlap, _, hull = _overlap(first, second)
    return overlap - _distance(first, second, hull)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU, -2 to 1, of cxcywh boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Zheng et al., AAAI 2020, equations 8 to 11: DIoU - alpha v. v is the squared difference of the angles of the
    diagonals, times 4 / pi^2, and `alpha = v / (1 - IoU + v)`, without gradient.
    """
    first, second = _split(a), _split(b)
    overlap, _, hull = _overlap(first, second)
    v = (_angle(first) - _angle(second)).square() * (4 / math.pi**2)
    with torch.no_grad():
        alpha = v / (1 - overlap + v).clamp(min=_MIN_AREA)
    return overlap - _distance(first, second, hull) - alpha * v


_Box = tuple[Tensor, Tensor]  # center and size, [..., 2] each


def _split(boxes: Tensor) -> _Box:
    """Center and size, `[..., 2]` each."""
    center, size = at_least_fp32(boxes).chunk(2, -1)  # the gradient of chunks is a single concatenation
    return center, size


def _overlap(a: _Box, b: _Box) -> tuple[Tensor, Tensor, Tensor]:
    """IoU and area of the union, `[...]`, and sides of the hull, `[..., 2]`.

    The hull is the smallest box around both. Along each axis the overlap of two intervals is at most the smaller one; a
    negative overlap is the gap between them.
    """
    sum_of_sides = a[1] + b[1]
    overlap = torch.minimum(torch.minimum(a[1], b[1]), 0.5 * sum_of_sides - (a[0] - b[0]).abs())
    intersection = _product(overlap.clamp(min=0))
    union = (_product(a[1]) + _product(b[1])).sub_(intersection)
    return _ratio(intersection, union), union, sum_of_sides.sub_(overlap)


def _distance(a: _Box, b: _Box, hull: Tensor) -> Tensor:
    """Squared distance of the centers over the squared diagonal of the hull, `[...]`."""
    return _ratio((a[0] - b[0]).square().sum(-1), hull.square().sum(-1))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, without gradient where the whole is degenerate."""
    ratio = part / whole.clamp(min=_MIN_AREA)
    return torch.where(whole < _MIN_AREA, ratio.detach(), ratio) if ratio.requires_grad else ratio


def _angle(box: _Box) -> Tensor:
    """The angle of the diagonal of a box, from its width over its height."""
    width, height = box[1].clamp(min=_MIN_SIDE).unbind(-1)
    return torch.atan2(width, height)


def _product(sides: Tensor) -> Tensor:
    width, height = sides.unbind(-1)
    return width * height


def at_least_fp32(values: Tensor) -> Tensor:
    """The same values in fp32, or in fp64 where they already are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
