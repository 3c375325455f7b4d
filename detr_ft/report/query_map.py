"""Where a query looks: the centres of its boxes over all images, as in Carion et al. (ECCV 2020), figure 7."""

from __future__ import annotations

from torch import Tensor

_MOST = 150
_SMALL = 0.1  # of the image's side


def query_map(boxes: Tensor) -> str:
    """An `<svg>` of the unit square with a dot for each of up to 150 boxes `[I, 4]` (cxcywh, fractions).

    Green: small; red: large and wide; blue: large and tall.
    """
    step = max(1, len(boxes) // _MOST)
    dots = "".join(
        f'<circle class="{_kind(width, height)}" cx="{100 * x:.1f}" cy="{100 * y:.1f}" r="1.6"/>'
        for x, y, width, height in boxes[::step][:_MOST].tolist()
    )
    return f'<svg viewBox="0 0 100 100" aria-hidden="true"><rect class="edge" width="100" height="100"/>{dots}</svg>'


def _kind(width: float, height: float) -> str:
    if (width * height) ** 0.5 < _SMALL:
        return "small"
    return "wide" if width >= height else "tall"
