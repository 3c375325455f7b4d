"""Where the images of a file of annotations lie, when it names them without saying where."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from detr_ft.data.sources.records import IMAGE_SUFFIXES, split_of


class ImageFinder:
    """Finds the images that a file names: beside it or one folder above, in images/, or in a folder named as the split."""

    def __init__(self, file: Path, split: str) -> None:
        near = [place / name for place in (file.parent, file.parent.parent) for name in ("", "images")]
        words = [word for word in (file.stem, split, "val", "valid", "dev") if split_of(word) == split]
        places = dict.fromkeys([*near, *(place / word for place in near for word in words)])
        self.folders = [place.absolute() for place in places if place.is_dir()]

    def find(self, name: str) -> Path:
        """The image's path, or where there is none, the one at which it should be."""
        written = Path(name.replace("\\", "/"))
        for candidate in (written, Path(written.name)):
            for folder in self.folders:
                if (folder / candidate).is_file():
                    return folder / candidate
        return self._by_stem.get(written.name, self.folders[0] / written)

    @cached_property
    def _by_stem(self) -> dict[str, Path]:
        """Images by their name without its suffix, as Open Images' tables write them; the nearest folder's first."""
        files = [path for folder in reversed(self.folders) for path in sorted(folder.iterdir())]
        return {path.stem: path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
