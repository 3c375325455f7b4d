"""Images that look alike: copies saved again, resized, or neighboring frames of a video.

A fingerprint records, for each of 8 x 8 cells of an image and each color, whether brightness rises or falls to the right and
downwards, or neither: 384 signs. The distance of two images is the fraction of signs that differ, among those that either of
them has, so that a uniform background, which has no signs, makes no images alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Images at up to this distance are alike. Saving a photograph again, at 60 % of its size and JPEG quality 40, changes it by
# up to 0.1; photographs of other things are beyond 0.3.
MAX_DISTANCE = 0.15

_CELLS_PER_SIDE = 8
_MIN_STEP_LEVELS = 1.0  # of 255, between neighboring cells, for a sign
_MIN_SIGNS = 48  # with fewer, an image is too uniform to be recognized by them
_IMAGES_PER_BLOCK = 2048  # compared with as many others at once


def fingerprint(image: Image.Image) -> bytes:
    """Return 96 bytes for an RGB image: its 384 signs, first those of rising brightness, then of falling.

    An image too uniform for signs gets a digest of its small copy instead, which only an image of the same colors has.
    """
    small = image.resize((_CELLS_PER_SIDE + 1, _CELLS_PER_SIDE + 1), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    corner = pixels[:-1, :-1]
    steps = np.concatenate([(pixels[:-1, 1:] - corner).ravel(), (pixels[1:, :-1] - corner).ravel()])
    brighter, darker = steps > _MIN_STEP_LEVELS, steps < -_MIN_STEP_LEVELS
    if brighter.sum() + darker.sum() < _MIN_SIGNS:
        digest = hashlib.shake_256(small.tobytes()).digest(len(steps) // 4)
        brighter, bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(bool).reshape(2, -1)
        darker = bits & ~brighter
    return np.packbits(np.concatenate([brighter, darker])).tobytes()


def similar_groups(fingerprints: Sequence[bytes], distance: float = MAX_DISTANCE) -> list[list[int]]:
    """Return groups of two or more similar images: sorted lists of indices, ordered by the first.

    An image belongs to a group if it is within `distance`, 0 to 1, of any of its members.
    """
    count = len(fingerprints)
    group = np.arange(count)  # the group of each, as the index of a member
    for first, second in _near_pairs(fingerprints, distance):
        if len(first):
            # The connected components of the groups so far and the new pairs, both as links.
            ends = np.concatenate([np.arange(count), first]), np.concatenate([group, second])
            links = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
            component = connected_components(links, directed=False)[1]
            group = np.unique(component, return_index=True)[1][component]
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if count else []
    return [part.tolist() for part in parts if len(part) > 1]


def nearest(fingerprints: Sequence[bytes], others: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the distance of each fingerprint to the nearest of the others, `[N]`, and its index `[N]`."""
    smallest = np.full(len(fingerprints), np.inf, dtype=np.float32)
    indices = np.zeros(len(fingerprints), dtype=np.intp)
    for start, stop, first, second in _blocks(len(fingerprints), len(others)):
        distances = _distances(fingerprints[start:stop], others[first:second])
        closer = distances.min(1) < smallest[start:stop]
        smallest[start:stop] = np.where(closer, distances.min(1), smallest[start:stop])
        indices[start:stop] = np.where(closer, first + distances.argmin(1), indices[start:stop])
    return smallest, indices


def _near_pairs(fingerprints: Sequence[bytes], distance: float) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield every pair within `distance`, first before second, one block of all pairs at a time."""
    for start, stop, first, second in _blocks(len(fingerprints), len(fingerprints)):
        if first >= start:
            rows, columns = np.nonzero(_distances(fingerprints[start:stop], fingerprints[first:second]) <= distance)
            ordered = rows + start < columns + first
            yield rows[ordered] + start, columns[ordered] + first


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, rows, _IMAGES_PER_BLOCK):
        for first in range(0, columns, _IMAGES_PER_BLOCK):
            yield start, start + _IMAGES_PER_BLOCK, first, first + _IMAGES_PER_BLOCK


def _distances(fingerprints: Sequence[bytes], others: Sequence[bytes]) -> NDArray[np.float32]:
    """Return the fraction of signs that differ, `[N, M]`."""
    rows, columns = _signs(fingerprints), _signs(others)
    half = rows.shape[1] // 2
    any_of_rows, any_of_columns = rows[:, :half] + rows[:, half:], columns[:, :half] + columns[:, half:]
    either = any_of_rows.sum(1)[:, None] + any_of_columns.sum(1) - any_of_rows @ any_of_columns.T
    return np.asarray(1 - (rows @ columns.T) / np.maximum(either, 1), dtype=np.float32)


def _signs(fingerprints: Sequence[bytes]) -> NDArray[np.float32]:
    """Return the signs as 0 and 1, `[N, 768]`."""
    packed = np.frombuffer(b"".join(fingerprints), dtype=np.uint8).reshape(len(fingerprints), -1)
    return np.unpackbits(packed, axis=1).astype(np.float32)
