"""Images that are the same or look alike, within a split and across splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.scan import Looks
from detr_ft.data.duplicates import NEAR, groups, nearest
from detr_ft.data.integrity.scan import ScannedImage

_NAMED = 3

_Place = tuple[str, int]  # split and row


@dataclass(frozen=True)
class Alike:
    """The findings, and for each split how many of its images are the same as, or look like, one of a split before it."""

    findings: list[Finding]
    leaked: dict[str, int]


def find_alike(looks: Looks) -> Alike:
    """Exact copies first, one finding each; then what looks alike, one finding for a group and split."""
    copies, firsts = _exact(looks)
    leaked = dict.fromkeys(looks.splits, 0)
    findings = []
    for place, first in copies:
        across = place[0] != first[0]
        leaked[place[0]] += across
        findings.append(_copy(looks, place, first, "leakage" if across else "duplicate image"))
    prints = [looks.splits[split][row].fingerprint for split, row in firsts]
    for group in groups(prints):
        members: dict[str, list[int]] = {split: [] for split in looks.splits}
        for index in group:
            members[firsts[index][0]].append(firsts[index][1])
        for split, rows in members.items():
            findings.extend(_within(looks, split, rows))
        for one, count in _across(looks, members):
            findings.append(one)
            leaked[one.split] += count
    return Alike(findings, leaked)


def _exact(looks: Looks) -> tuple[list[tuple[_Place, _Place]], list[_Place]]:
    """Copies, each with the first that has the same bytes, and all firsts."""
    first: dict[bytes, _Place] = {}
    copies = []
    for split, some in looks.splits.items():
        for row, one in enumerate(some):
            if one.digest and first.setdefault(one.digest, (split, row)) != (split, row):
                copies.append(((split, row), first[one.digest]))
    return copies, list(first.values())


def _copy(looks: Looks, place: _Place, first: _Place, kind: str) -> Finding:
    other = looks.splits[first[0]][first[1]]
    message = f"the same bytes as {other.name}" + (f" in {first[0]}" if first[0] != place[0] else "")
    return _finding(kind, looks, place, message, first)


def _within(looks: Looks, split: str, rows: Sequence[int]) -> Iterator[Finding]:
    if len(rows) > 1:
        others = [looks.splits[split][row] for row in rows[1:]]
        yield _finding("near duplicate", looks, (split, rows[0]), f"looks like {_named(others)}", (split, rows[1]))


def _across(looks: Looks, members: Mapping[str, Sequence[int]]) -> Iterator[tuple[Finding, int]]:
    """For each split with members that look like those of splits before it: the closest, and how many there are."""
    before: list[_Place] = []
    for split, rows in members.items():
        if before and rows:
            apart, which = nearest(
                [looks.splits[split][row].fingerprint for row in rows],
                [looks.splits[other][row].fingerprint for other, row in before],
            )
            near = int((apart <= NEAR).sum())
            if near:
                closest = int(apart.argmin())
                other = before[int(which[closest])]
                name = f"{looks.splits[other[0]][other[1]].short} in {other[0]}"
                rest = f"; in {split} {near - 1} more look like that one or its like"
                message = f"looks like {name}" + (rest if near > 1 else "")
                yield _finding("leakage", looks, (split, rows[closest]), message, other), near
        before += [(split, row) for row in rows]


def _finding(kind: str, looks: Looks, place: _Place, message: str, like: _Place) -> Finding:
    one = looks.splits[place[0]][place[1]]
    return finding(kind, place[0], message, image=one.name, image_id=one.image_id, row=place[1], like=like)


def _named(some: Sequence[ScannedImage]) -> str:
    rest = len(some) - _NAMED
    return ", ".join(one.short for one in some[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
