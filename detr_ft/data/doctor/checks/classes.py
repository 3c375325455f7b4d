"""What is wrong with the classes: names that are nearly the same, and splits that lack some."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from detr_ft.data.doctor.finding import Finding, finding
from detr_ft.data.doctor.statistics import SplitSummary


def missing_classes(splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    """One finding for each class that a split has no box of; one in all for a class that no split has a box of."""
    for name in next(iter(splits.values())).boxes_per_class:
        lacking = [split for split, one in splits.items() if not one.boxes_per_class.get(name)]
        if len(lacking) == len(splits):
            yield finding("class missing", ", ".join(splits), f"no box of class {name!r} in any split")
        else:
            for split in lacking:
                yield finding("class missing", split, f"no box of class {name!r}")


def similar_names(names: Sequence[str], splits: Mapping[str, SplitSummary]) -> Iterator[Finding]:
    """One finding for each group of names that are the same but for case, blanks and a plural s."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            counts = {name: sum(one.boxes_per_class.get(name, 0) for one in splits.values()) for name in group}
            told = ", ".join(f"{name!r} ({count})" for name, count in counts.items())
            yield finding(
                "similar class names",
                ", ".join(splits),
                f"{told} are nearly the same name; in brackets the number of boxes",
            )


def _plain(name: str) -> str:
    """The name in small letters, without blanks, hyphens and a plural s; single letters stay as they are."""
    plain = re.sub(r"[\s_-]+", "", name)
    if len(plain) < 2:
        return plain
    plain = plain.casefold()
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
