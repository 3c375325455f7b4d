"""Which tool wrote a JSON file, told by as little of it as is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from detr_ft.errors import InputError

_CHUNK = 1 << 16
_KEYS = re.compile(r'"(images|annotations|categories|shapes|imagePath)"\s*:')


def json_kind(file: Path) -> Literal["coco", "labelme", "labelstudio"]:
    """The source that reads this file: a list is Label Studio's, a mapping LabelMe's if shapes come before images."""
    before = ""
    for chunk in _chunks(file):
        text = before + chunk
        if text.lstrip().startswith("[") and not before:
            return "labelstudio"
        key = _KEYS.search(text)
        if key:
            return "labelme" if key[1] in ("shapes", "imagePath") else "coco"
        before = text[-50:]
    return "coco"


def _chunks(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error
