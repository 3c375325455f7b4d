"""Masks of Label Studio's brush: a run-length code in bits, that of the library thi.ng/rle-pack."""

from __future__ import annotations

import numpy as np

from detr_ft.data.images import MAX_PIXELS
from detr_ft.data.sources.shapes_to_boxes import box_around_mask

_CHANNELS = 4  # red, green, blue and the mask in alpha


def box_around_brush(code: object, width: int, height: int) -> list[float] | None:
    """Return the box xywh in pixels around a mask, None for a damaged or empty one.

    `code` is a list of bytes. In bits: the number of values (32), the bits of a value less one (5), the bits of four
    lengths less one (4 each); then runs: a repeated value follows (1), which of the four lengths (2), the length less one,
    and one value or as many as the length. Values are those of the image `[height, width, 4]`.
    """
    count = width * height * _CHANNELS
    if not isinstance(code, list) or not 0 < count <= MAX_PIXELS * _CHANNELS:
        return None
    if not all(isinstance(byte, int) and 0 <= byte < 256 for byte in code):
        return None
    try:
        values = _decode(_Bits(bytes(code)), count)
    except EOFError:
        return None
    return None if values is None else box_around_mask(values.reshape(height, width, _CHANNELS)[..., -1] > 0)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next bits as a number. Raises EOFError after the last."""
        if count > self._left:
            raise EOFError
        self._left -= count
        return (self._number >> self._left) & ((1 << count) - 1)


def _decode(bits: _Bits, count: int) -> np.ndarray | None:
    """Return `count` values, None for a code of another number. Raises EOFError."""
    if bits.read(32) != count:
        return None
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=np.int64)
    start = 0
    while start < count:
        repeated = bits.read(1)
        end = start + 1 + bits.read(length_bits[bits.read(2)])
        if repeated:
            values[start:end] = bits.read(value_bits)
        else:
            values[start:end] = [bits.read(value_bits) for _ in range(start, min(end, count))]
        start = end
    return values
