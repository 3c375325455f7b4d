"""One generated scene: a background, and silhouettes drawn on it from back to front."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Polygon = NDArray[np.float64]  # [N, 2] in any unit, scaled by the scene


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
    center = 0.55
    radius = math.hypot(tip[0] - center, tip[1])
    start = math.atan2(tip[1], tip[0] - center)
    inner = np.linspace(2 * math.pi - start, start, 30)
    arc = np.stack([center + radius * np.cos(inner), radius * np.sin(inner)], 1)
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


MIN_SIDE_FRACTION, MAX_SIDE_FRACTION = 0.06, 0.60  # a box's longer side, in fractions of the image's longer side
_EMPTY_FRACTION = 0.1
_CROWDED_FRACTION = 0.15
_MIN_VISIBLE_FRACTION = 0.5  # of an object's own pixels
_POSITION_TRIES = 8
_SUPERSAMPLING = 4

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass
class Scene:
    """Pixels `[H, W, 3]` and, for each object, visible box (COCO xywh, pixels), class and visible area."""

    pixels: Pixels
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)


def render_scene(random: Generator, names: list[str], edge: int, max_objects: int) -> Scene:
    """Return a scene of `edge` pixels on the longer side, with up to `max_objects` objects of `names`."""
    shorter = int(edge * random.choice([1.0, 0.85, 0.7]))
    height, width = (edge, shorter) if random.random() < 0.3 else (shorter, edge)
    canvas = _background(random, height, width)
    owner = np.full((height, width), -1)
    labels: list[int] = []
    full_areas: list[int] = []
    for fraction, center in _layout(random, edge, height, width, max_objects):
        label = int(random.integers(len(names)))
        alpha = _silhouette(random, names[label], fraction * edge)
        position = _place(random, alpha, center, owner, full_areas, MIN_SIDE_FRACTION * edge)
        if position is None:
            continue
        top, left = position
        window = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
        color = _surface(random, alpha.shape, canvas[window])
        canvas[window] += alpha[..., None] * (color - canvas[window])
        owner[window][alpha > 0.5] = len(labels)
        labels.append(label)
        full_areas.append(int((alpha > 0.5).sum()))
    canvas += random.normal(0, random.uniform(2, 12), canvas.shape)
    scene = Scene(np.clip(canvas, 0, 255).astype(np.uint8))
    for index, label in enumerate(labels):
        mask = owner == index
        left, top, right, bottom = _extent(mask)
        scene.boxes.append([float(left), float(top), float(right - left), float(bottom - top)])
        scene.labels.append(label)
        scene.areas.append(float(mask.sum()))
    return scene


def _layout(
    random: Generator, edge: int, height: int, width: int, max_objects: int
) -> list[tuple[float, tuple[float, float]]]:
    """Return sizes (fractions of the edge) and desired centers (y, x), the largest first."""
    if random.random() < _EMPTY_FRACTION:
        return []
    crowded = random.random() < _CROWDED_FRACTION
    count = max_objects if crowded else min(max_objects, 1 + int(random.poisson(max_objects / 4)))
    largest = 0.3 if crowded else MAX_SIDE_FRACTION
    sizes = MIN_SIDE_FRACTION + (largest - MIN_SIDE_FRACTION) * random.random(count)
    middle = np.array([random.uniform(0.3, 0.7) * height, random.uniform(0.3, 0.7) * width])
    layout = []
    for size in sorted(sizes.tolist(), reverse=True):
        if crowded:
            y, x = middle + random.normal(0, 0.2 * edge, 2)
        else:
            y, x = random.uniform(0, height), random.uniform(0, width)
        layout.append((size, (float(y), float(x))))
    return layout


def _silhouette(random: Generator, name: str, longest: float) -> Floats:
    """Return the coverage `[h, w]`, 0 to 1, of a rotated and stretched silhouette of `longest` pixels."""
    turn = math.radians(random.uniform(-35, 35))
    stretch = np.array([1.0, random.uniform(0.75, 1.3)])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    parts = [(polygon * stretch) @ rotation.T for polygon in SHAPES[name]]
    low = parts[0].min(0)
    extent = parts[0].max(0) - low
    # One pixel less than `longest`: partly covered pixels count as whole, and the largest size must not be exceeded.
    scale = max(longest - 1, 1) / extent.max()
    width, height = (max(2, math.ceil(side)) for side in extent * scale)
    mask = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    for index, part in enumerate(parts):
        points = ((part - low) * scale * _SUPERSAMPLING).flatten().tolist()
        draw.polygon(points, fill=0 if index else 255)
    return np.asarray(mask.reduce(_SUPERSAMPLING), dtype=np.float64) / 255


def _place(
    random: Generator,
    alpha: Floats,
    center: tuple[float, float],
    owner: NDArray[np.int64],
    full_areas: list[int],
    min_side: float,
) -> tuple[int, int] | None:
    """Return the top-left corner of a position near `center` where earlier objects remain visible."""
    mask = alpha > 0.5
    height, width = mask.shape
    if height > owner.shape[0] or width > owner.shape[1] or not mask.any():
        return None
    left, top, right, bottom = _extent(mask)
    if max(right - left, bottom - top) < min_side:
        return None
    spread = 0.0
    for _ in range(_POSITION_TRIES):
        y = int(np.clip(center[0] - height / 2 + random.normal(0, spread + 1e-9), 0, owner.shape[0] - height))
        x = int(np.clip(center[1] - width / 2 + random.normal(0, spread + 1e-9), 0, owner.shape[1] - width))
        if _leaves_visible(mask, y, x, owner, full_areas, min_side):
            return y, x
        spread += 0.12 * max(owner.shape)
    return None


def _leaves_visible(
    mask: Mask, top: int, left: int, owner: NDArray[np.int64], full_areas: list[int], min_side: float
) -> bool:
    below = owner[top : top + mask.shape[0], left : left + mask.shape[1]]
    for index in np.unique(below[mask]):
        if index < 0:
            continue
        visible = owner == index
        visible[top : top + mask.shape[0], left : left + mask.shape[1]] &= ~mask
        if visible.sum() < _MIN_VISIBLE_FRACTION * full_areas[index]:
            return False
        x0, y0, x1, y1 = _extent(visible)
        if max(x1 - x0, y1 - y0) < min_side:
            return False
    return True


def _extent(mask: Mask) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a mask that is not empty; right and bottom are exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _background(random: Generator, height: int, width: int) -> Floats:
    """Return a smooth blend of two colors, sometimes with stripes: `[H, W, 3]`."""
    first, second = random.uniform(20, 235, 3), random.uniform(20, 235, 3)
    cells = int(random.integers(2, 12))
    coarse = Image.fromarray((random.random((cells, cells)) * 255).astype(np.uint8))
    blend = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)[..., None] / 255
    background = first + blend * (second - first) * random.uniform(0.2, 0.8)
    if random.random() < 0.4:
        background += _stripes(random, height, width)[..., None] * random.uniform(5, 25)
    return background


def _stripes(random: Generator, height: int, width: int) -> Floats:
    angle, period = random.uniform(0, math.pi), random.uniform(4, 20)
    y, x = np.mgrid[:height, :width]
    wave: Floats = np.sin((math.cos(angle) * x + math.sin(angle) * y) * 2 * math.pi / period)
    return wave


def _surface(random: Generator, shape: tuple[int, ...], below: Floats) -> Floats:
    """Return a color that differs from the pixels below, shaded and sometimes striped: `[h, w, 3]`."""
    average = below.mean((0, 1))
    color = random.uniform(0, 255, 3)
    for _ in range(20):
        if np.abs(color - average).max() > 60:
            break
        color = random.uniform(0, 255, 3)
    shade = np.linspace(-1, 1, shape[0])[:, None, None] * random.uniform(-25, 25)
    surface = np.broadcast_to(color, (*shape, 3)) + shade
    if random.random() < 0.3:
        surface = surface + _stripes(random, *shape)[..., None] * random.uniform(8, 25)
    return surface
