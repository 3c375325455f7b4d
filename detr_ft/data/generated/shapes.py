"""The silhouettes of the generated scenes, as polygons in a unit frame: the second and later ones cut holes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]  # [N, 2], any unit: a scene scales it


def _regular(count: int, radius: float = 1.0, phase: float = -math.pi / 2) -> Polygon:
    angle = phase + 2 * math.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _alternating(points: int, inner: float) -> Polygon:
    polygon = _regular(2 * points)
    polygon[1::2] *= inner
    return polygon


def _gear() -> Polygon:
    radius = np.tile([1.0, 1.0, 0.72, 0.72], 8)
    angle = 2 * math.pi * np.arange(32) / 32
    outline: Polygon = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return outline


def _crescent() -> Polygon:
    outer = np.linspace(0.35 * math.pi, 1.65 * math.pi, 30)
    tip = np.array([math.cos(outer[0]), math.sin(outer[0])])
    centre = 0.55
    radius = math.hypot(tip[0] - centre, tip[1])
    start = math.atan2(tip[1], tip[0] - centre)
    inner = np.linspace(2 * math.pi - start, start, 30)
    arc = np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], 1)
    return np.concatenate([np.stack([np.cos(outer), np.sin(outer)], 1), arc])


def _heart() -> Polygon:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], 1) / 16


def _magnet() -> Polygon:
    bend = np.linspace(math.pi, 2 * math.pi, 20)
    outer = np.stack([np.cos(bend), np.sin(bend)], 1)
    return np.concatenate([[[-1, 0.9]], outer, [[1, 0.9], [0.45, 0.9]], 0.45 * outer[::-1], [[-0.45, 0.9]]])


def _points(*values: float) -> Polygon:
    return np.array(values, dtype=np.float64).reshape(-1, 2)


SHAPES: dict[str, tuple[Polygon, ...]] = {
    "circle": (_regular(40),),
    "square": (_points(-1, -1, 1, -1, 1, 1, -1, 1),),
    "triangle": (_regular(3),),
    "star": (_alternating(5, 0.42),),
    "cross": (_points(-0.3, -1, 0.3, -1, 0.3, -0.3, 1, -0.3, 1, 0.3, 0.3, 0.3, 0.3, 1, -0.3, 1, -0.3, 0.3, -1, 0.3, -1, -0.3, -0.3, -0.3),),
    "crescent": (_crescent(),),
    "arrow": (_points(0, -1, 0.8, -0.1, 0.3, -0.1, 0.3, 1, -0.3, 1, -0.3, -0.1, -0.8, -0.1),),
    "heart": (_heart(),),
    "gear": (_gear(), _regular(24, 0.32)),
    "wrench": (_points(-0.45, -1, -0.15, -1, -0.15, -0.6, 0.15, -0.6, 0.15, -1, 0.45, -1, 0.45, -0.45, 0.18, -0.25, 0.18, 0.55, 0.34, 0.7, 0.34, 1, -0.34, 1, -0.34, 0.7, -0.18, 0.55, -0.18, -0.25, -0.45, -0.45),),
    "hammer": (_points(-0.8, -1, 0.55, -1, 0.85, -0.7, 0.85, -0.45, 0.2, -0.45, 0.2, 1, -0.15, 1, -0.15, -0.45, -0.8, -0.45),),
    "funnel": (_points(-1, -0.8, 1, -0.8, 0.2, 0.15, 0.2, 0.9, -0.2, 0.9, -0.2, 0.15),),
    "magnet": (_magnet(),),
}  # fmt: skip
