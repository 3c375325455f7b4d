"""Box formats, and the IoU family of cxcywh boxes. Any unit, as long as both boxes share it.

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
    centre, size = boxes.chunk(2, -1)
    half = 0.5 * size
    return torch.cat([centre - half, centre + half], dim=-1)


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


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of cxcywh boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    >>> iou(torch.tensor([1.0, 1.0, 2.0, 2.0]), torch.tensor([2.0, 1.0, 2.0, 2.0])).item()  # half of each is shared
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

    Zheng et al., AAAI 2020, equation 7: IoU - (distance of the centres)^2 / (diagonal of the hull)^2.
    """
    first, second = _split(a), _split(b)
    overlap, _, hull = _overlap(first, second)
    return overlap - _distance(first, second, hull)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU, -2 to 1, of cxcywh boxes that broadcast: `[..., 4]` and `[..., 4]` to `[...]`.

    Zheng et al., AAAI 2020, equations 8 to 11: DIoU - alpha v, where v compares the aspect ratios and alpha, which
    carries no gradient, trades it against the overlap.
    """
    first, second = _split(a), _split(b)
    overlap, _, hull = _overlap(first, second)
    v = (_angle(first) - _angle(second)).square() * (4 / math.pi**2)
    with torch.no_grad():
        alpha = v / (1 - overlap + v).clamp(min=_EMPTY)
    return overlap - _distance(first, second, hull) - alpha * v


_Box = tuple[Tensor, Tensor]  # centre and size, [..., 2] each


def _split(boxes: Tensor) -> _Box:
    """Centre and size, `[..., 2]` each. Chunks, and not slices: their gradient is one concatenation."""
    centre, size = at_least_fp32(boxes).chunk(2, -1)
    return centre, size


def _overlap(a: _Box, b: _Box) -> tuple[Tensor, Tensor, Tensor]:
    """IoU and area of the union, `[...]`, and width and height of the hull, the smallest box around both, `[..., 2]`.

    Along each axis two intervals share the smaller of them, unless their distance leaves less; below 0 it is the gap.
    """
    both = a[1] + b[1]
    shared = torch.minimum(torch.minimum(a[1], b[1]), 0.5 * both - (a[0] - b[0]).abs())
    intersection = _product(shared.clamp(min=0))
    union = (_product(a[1]) + _product(b[1])).sub_(intersection)
    return _ratio(intersection, union), union, both.sub_(shared)


def _distance(a: _Box, b: _Box, hull: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull, `[...]`."""
    return _ratio((a[0] - b[0]).square().sum(-1), hull.square().sum(-1))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`; where the whole is empty, about 0 and without a gradient, which would be steep beyond bounds."""
    ratio = part / whole.clamp(min=_EMPTY)
    return torch.where(whole < _EMPTY, ratio.detach(), ratio) if ratio.requires_grad else ratio


def _angle(box: _Box) -> Tensor:
    """The angle of a box's diagonal, from its width over its height."""
    width, height = box[1].clamp(min=_THIN).unbind(-1)
    return torch.atan2(width, height)


def _product(sides: Tensor) -> Tensor:
    width, height = sides.unbind(-1)
    return width * height


def at_least_fp32(values: Tensor) -> Tensor:
    """The same values in fp32, or in fp64 where they already are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
