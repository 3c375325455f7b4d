"""Recognize whether rows of YOLO's label files are boxes with keypoints, or polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_POINT_SLACK = 0.01  # fraction of the image by which a keypoint may be outside of its box
_MIN_TURN = 1e-9  # a smaller area (fraction of the image) is that of points on a line
_SAMPLE_ROWS = 500

_Point = tuple[float, float]


@dataclass(frozen=True)
class KeypointReading:
    """The number of keypoint values of a row, 0 for polygons; if `is_unclear`, rows may be either."""

    count: int
    is_unclear: bool = False


def recognize_keypoints(rows: Sequence[Sequence[float] | None]) -> KeypointReading:
    """Return the reading of rows without their class; None is a row with a word that is no number.

    Rows with keypoints have one length, of a box in the image and points of two or three numbers. Either the points are in
    the box, or the third numbers are visibilities (0, 1 or 2), or the rows can't be polygons: most would cross themselves, or
    all have the same points after different boxes. Eight numbers are the corners of quadrilaterals if all rows can be.
    """
    values = [row for row in rows if row]
    lengths = {len(row) for row in values}
    count = lengths.pop() - 4 if len(lengths) == 1 and len(values) == len(rows) else 0
    if count <= 0 or not all(map(_is_box, values)) or (count == 4 and all(map(_is_parallelogram, values))):
        return KeypointReading(0)
    if _have_equal_points(values):
        return KeypointReading(count)
    if count == 4 and all(map(_is_quadrilateral, values)):
        return KeypointReading(0, is_unclear=all(_points_are_inside(row, 2) for row in values))
    return KeypointReading(_num_keypoint_values(values, count))


def _num_keypoint_values(values: Sequence[Sequence[float]], count: int) -> int:
    """Return `count` if the numbers after boxes are keypoints, else 0."""
    if count % 3 == 0 and all(set(row[6::3]) <= {0, 1, 2} for row in values):
        return count
    if any(count % size == 0 and all(_points_are_inside(row, size) for row in values) for size in (2, 3)):
        return count
    sample = values[:: max(1, len(values) // _SAMPLE_ROWS)]
    return count if count % 2 == 0 and 2 * sum(map(_crosses_itself, sample)) > len(sample) else 0


def _have_equal_points(values: Sequence[Sequence[float]]) -> bool:
    """Return whether all rows have the same points after different boxes."""
    return len({tuple(row[:4]) for row in values}) > 1 and len({tuple(row[4:]) for row in values}) == 1


def _is_box(values: Sequence[float]) -> bool:
    """Return whether the first four numbers can be a box in the image."""
    x, y, w, h = values[:4]
    return min(w, h) > 0 and all(
        -_POINT_SLACK <= side <= 1 + _POINT_SLACK for side in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    )


def _points_are_inside(values: Sequence[float], numbers_each: int) -> bool:
    """Return whether the points after a box are inside it; points at the origin are not annotated."""
    x, y, w, h = values[:4]
    points = [values[i : i + 2] for i in range(4, len(values), numbers_each)]
    return all(
        (px, py) == (0, 0) or (abs(px - x) <= abs(w) / 2 + _POINT_SLACK and abs(py - y) <= abs(h) / 2 + _POINT_SLACK)
        for px, py in points
    )


def _crosses_itself(values: Sequence[float]) -> bool:
    """Return whether two sides of a polygon without a common corner cross."""
    points = list(zip(values[::2], values[1::2], strict=True))
    sides = list(zip(points, points[1:] + points[:1], strict=True))
    pairs = ((i, j) for i in range(len(sides)) for j in range(i + 2, len(sides)) if (i, j) != (0, len(sides) - 1))
    return any(_cross(*sides[i], *sides[j]) for i, j in pairs)


def _cross(a: _Point, b: _Point, c: _Point, d: _Point) -> bool:
    return _turn(a, b, c) * _turn(a, b, d) < 0 and _turn(c, d, a) * _turn(c, d, b) < 0


def _turn(a: _Point, b: _Point, c: _Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _is_parallelogram(values: Sequence[float]) -> bool:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = (values[i : i + 2] for i in range(0, 8, 2))
    return abs(ax + cx - bx - dx) <= _POINT_SLACK and abs(ay + cy - by - dy) <= _POINT_SLACK


def _is_quadrilateral(values: Sequence[float]) -> bool:
    """Return whether four corners are a quadrilateral with an area and sides that don't cross."""
    a, b, c, d = ((values[i], values[i + 1]) for i in range(0, 8, 2))
    area = _turn(a, b, c) + _turn(a, c, d)
    return area != 0 and not _touch(a, b, c, d) and not _touch(b, c, d, a)


def _touch(a: _Point, b: _Point, c: _Point, d: _Point) -> bool:
    """Return whether two sides cross or have a common point."""
    turns = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    sides = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(abs(turn) < _MIN_TURN and _is_between(*side) for turn, side in zip(turns, sides, strict=True))


def _is_between(a: _Point, b: _Point, point: _Point) -> bool:
    """Return whether a point on the line through two others is between them."""
    return all(min(i, j) - _MIN_TURN <= k <= max(i, j) + _MIN_TURN for i, j, k in zip(a, b, point, strict=True))
