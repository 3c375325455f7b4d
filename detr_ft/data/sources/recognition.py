"""Kinds of the annotation files in a folder, by the contents of a sample of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

_SAMPLE_FILES = 40
_HEAD_BYTES = 4096
_ROOT = re.compile(r"<([A-Za-z_][\w.-]*)")


def most_common(files: Sequence[Path], kind_of: Callable[[Path], str | None]) -> str | None:
    """Return the most common kind in a sample of the files, None if there is none or most are of no kind."""
    kinds = count_kinds(files, kind_of)
    return kinds.most_common(1)[0][0] if kinds else None


def count_kinds(files: Sequence[Path], kind_of: Callable[[Path], str | None]) -> Counter[str]:
    """Return the number of files of each kind in an evenly spaced sample."""
    step = max(1, len(files) // _SAMPLE_FILES)
    kinds = (kind_of(file) for file in files[::step])
    return Counter(kind for kind in kinds if kind is not None)


def xml_root(file: Path) -> str | None:
    """Return the name of an XML file's root element, None if its beginning has none."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return None
    text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", errors="replace")
    root = _ROOT.search(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    return root[1] if root else None
