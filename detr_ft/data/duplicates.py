"""Images that are alike: copies saved anew, resized, or neighbouring frames of a video.

A fingerprint says, for each of 8 x 8 places of an image and each colour, whether it gets brighter or darker to the right and
downwards, or neither: 384 signs. Two images are as far apart as the share of signs that differ, among those that either of
them has, so that a plain ground, which has no signs, makes nothing alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Images no farther apart than this are alike. Saving a photograph anew, at 60 % of its size and JPEG quality 40, moves it by
# up to 0.1; photographs of other things are beyond 0.3.
MAX_DISTANCE = 0.15

_CELLS = 8
_LEAST_STEP = 1.0  # levels of 255 between neighbouring places that count as a change
_LEAST_SIGNS = 48  # with fewer, an image is too plain to be known by them
_BLOCK = 2048  # images that are compared with as many others at once


def fingerprint(image: Image.Image) -> bytes:
    """96 bytes for an RGB image: its 384 signs, first where it gets brighter, then where darker.

    An image that is too plain for signs gets a digest of its small copy in their place, which only the same colours have.
    """
    small = image.resize((_CELLS + 1, _CELLS + 1), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float32)
    corner = pixels[:-1, :-1]
    steps = np.concatenate([(pixels[:-1, 1:] - corner).ravel(), (pixels[1:, :-1] - corner).ravel()])
    brighter, darker = steps > _LEAST_STEP, steps < -_LEAST_STEP
    if brighter.sum() + darker.sum() < _LEAST_SIGNS:
        digest = hashlib.shake_256(small.tobytes()).digest(len(steps) // 4)
        brighter, some = np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(bool).reshape(2, -1)
        darker = some & ~brighter
    return np.packbits(np.concatenate([brighter, darker])).tobytes()


def similar_groups(fingerprints: Sequence[bytes], distance: float = MAX_DISTANCE) -> list[list[int]]:
    """Groups of two or more that are alike, each a sorted list of indices; the groups in the order of their first.

    An image belongs to a group if it is within `distance`, 0 to 1, of any of its members.
    """
    count = len(fingerprints)
    group = np.arange(count)  # the group of each, named by one of its members
    for first, second in _near_pairs(fingerprints, distance):
        if len(first):
            # What is joined so far, as links, and the new pairs: their components are the groups from here on.
            ends = np.concatenate([np.arange(count), first]), np.concatenate([group, second])
            links = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
            component = connected_components(links, directed=False)[1]
            group = np.unique(component, return_index=True)[1][component]
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if count else []
    return [part.tolist() for part in parts if len(part) > 1]


def nearest(fingerprints: Sequence[bytes], others: Sequence[bytes]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """For each of the fingerprints the distance to the nearest of the others, `[N]`, and which one it is, `[N]`."""
    least = np.full(len(fingerprints), np.inf, dtype=np.float32)
    which = np.zeros(len(fingerprints), dtype=np.intp)
    for start, stop, first, second in _blocks(len(fingerprints), len(others)):
        apart = _distances(fingerprints[start:stop], others[first:second])
        closer = apart.min(1) < least[start:stop]
        least[start:stop] = np.where(closer, apart.min(1), least[start:stop])
        which[start:stop] = np.where(closer, first + apart.argmin(1), which[start:stop])
    return least, which


def _near_pairs(fingerprints: Sequence[bytes], distance: float) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Every pair that is near, first before second, a block of the square of all pairs at a time."""
    for start, stop, first, second in _blocks(len(fingerprints), len(fingerprints)):
        if first >= start:
            one, other = np.nonzero(_distances(fingerprints[start:stop], fingerprints[first:second]) <= distance)
            ahead = one + start < other + first
            yield one[ahead] + start, other[ahead] + first


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, rows, _BLOCK):
        for first in range(0, columns, _BLOCK):
            yield start, start + _BLOCK, first, first + _BLOCK


def _distances(some: Sequence[bytes], others: Sequence[bytes]) -> NDArray[np.float32]:
    """The share of signs that differ, `[N, M]`."""
    mine, theirs = _signs(some), _signs(others)
    half = mine.shape[1] // 2
    any_of_mine, any_of_theirs = mine[:, :half] + mine[:, half:], theirs[:, :half] + theirs[:, half:]
    either = any_of_mine.sum(1)[:, None] + any_of_theirs.sum(1) - any_of_mine @ any_of_theirs.T
    return np.asarray(1 - (mine @ theirs.T) / np.maximum(either, 1), dtype=np.float32)


def _signs(fingerprints: Sequence[bytes]) -> NDArray[np.float32]:
    """The signs as 0 and 1, `[N, 768]`."""
    packed = np.frombuffer(b"".join(fingerprints), dtype=np.uint8).reshape(len(fingerprints), -1)
    return np.unpackbits(packed, axis=1).astype(np.float32)
