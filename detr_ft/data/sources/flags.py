"""What data sets say of an object with yes or no, in any of the ways in which they write it."""

from __future__ import annotations

from detr_ft.data.sources.text import shown

_YES = ("1", "true", "yes", "y", "t")
_NO = ("0", "false", "no", "n", "f")
_UNSTATED = ("", "-1", "nan", "none", "null", "unknown", "unspecified")  # -1 is Open Images', unspecified VOC's


def flag(stated: object, field: str, where: str, problems: list[str]) -> bool:
    """Whether a field says yes; where it is empty or unknown it doesn't. What is neither yes nor no is a problem."""
    if stated is None or stated in (0, 1):
        return bool(stated)
    word = str(stated).strip().lower() if isinstance(stated, (str, int, float)) else "?"
    word = word.removesuffix(".0")
    if word not in (*_YES, *_NO, *_UNSTATED):
        problems.append(f"{where}: {field} must be yes (1, true) or no (0, false), got {shown(stated)}")
    return word in _YES
