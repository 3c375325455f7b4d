"""Files and folders of a data set, and the splits in their names.

Hidden files and folders, and those that tools leave behind (`@eaDir` of a NAS, `__MACOSX` of an archive), are in no listing.
Linked folders are followed, also links that a copy without links (git on Windows, some archives) turned into files of text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.errors import InputError

_TOOL_FOLDERS = frozenset(
    {"@eaDir", "__MACOSX", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}
_HELD_OUT = re.compile(r"(?<![a-z])h[oe]ld[^a-z0-9]?out(?![a-z])")
# Beside them, `eval` and `evaluation` name no split: `evaluation_results.json`.
_EVALUATION_WORDS = frozenset({"eval", "evaluation"})
_OUTPUT_WORDS = frozenset({"result", "results", "prediction", "predictions", "detection", "detections", "metrics"})
_MAX_FILES_SHOWN = 5
_MAX_LINK_BYTES = 4096  # of a path
_IMAGE_WORDS = frozenset({"images", "image", "imgs", "img", "data", "set"})  # beside a split in the name of a folder


def split_of(word: str) -> str | None:
    """Return the split in a word such as `valid` or `instances_val2017`, None if there is none."""
    parts = _words(word)
    if not _OUTPUT_WORDS.isdisjoint(parts):
        parts = [part for part in parts if part not in _EVALUATION_WORDS]
    return next((_SPLIT_WORDS[part] for part in parts if part in _SPLIT_WORDS), None)


def split_of_folder(folder: Path) -> str | None:
    """Return the split that a folder is named after: `val2017`, `train_images`, not `test-drive`."""
    words = [word for word in _words(folder.name) if word and word not in _IMAGE_WORDS]
    return _SPLIT_WORDS.get(words[0]) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    """Return the lower-case words of a name, with `hold-out` and `heldout` as `holdout`."""
    return re.split(r"[^a-z]+", _HELD_OUT.sub("holdout", name.lower()))


def split_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the subfolders that are named after a split, with that split."""
    for child in folders_in(folder):
        split = split_of_folder(child)
        if split:
            yield split, child


def split_of_path(path: Path, root: Path) -> str | None:
    """Return the split that the nearest folder of a path below `root` is named after."""
    folders = path.relative_to(root).parents if path.is_relative_to(root) else ()
    return next((split for folder in folders if (split := split_of_folder(folder))), None)


def files_by_split(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Return files by the splits in their names or folders; all are train if these name no splits."""
    words = [split_of(file.stem) or split_of_path(file, root) for file in files]
    if not name_splits(words):
        return {"train": list(files)}
    splits: dict[str, list[Path]] = {}
    for word, file in zip(words, files, strict=True):
        splits.setdefault(word or "train", []).append(file)
    return splits


def file_by_split(pairs: Iterable[tuple[str | None, Path]], origin: Path, source: str) -> dict[str, Path]:
    """Return the file of each split, of files with their split words.

    The only file without a word is train. `source` is the name of the source in the error. Raises InputError for several
    files of one split.
    """
    by_split: dict[str, list[Path]] = {}
    for split, file in pairs:
        by_split.setdefault(split or "train", []).append(file)
    several = {split: files for split, files in by_split.items() if len(files) > 1}
    if several:
        listed = "; ".join(f"{split}: {_first_of(files)}" for split, files in several.items())
        first = next(iter(several.values()))[0]
        raise InputError(
            f"{origin}: several {source} files for split {listed}. Give one of them, as in {source}:{first}, or name each "
            "file, or its folder, after its split (train, val, test)"
        )
    return {split: files[0] for split, files in by_split.items()}


def _first_of(files: Sequence[Path]) -> str:
    more = f" and {len(files) - _MAX_FILES_SHOWN} more" if len(files) > _MAX_FILES_SHOWN else ""
    return ", ".join(map(str, files[:_MAX_FILES_SHOWN])) + more


def name_splits(words: Collection[str | None]) -> bool:
    """Return whether split words name splits: one is validation or test, and not all are equal."""
    return len(set(words)) > 1 and not {"validation", "test"}.isdisjoint(words)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted."""
    return files_in(folder, IMAGE_SUFFIXES)


def images_below(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, sorted."""
    return files_below(folder, IMAGE_SUFFIXES)


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder with suffixes such as `.json`, in any case, sorted."""
    try:
        with os.scandir(folder) as entries:
            # A link that leads nowhere is a missing file, not none.
            names = [entry.name for entry in entries if entry.is_file() or _leads_nowhere(entry)]
    except OSError:
        return []
    return sorted(folder / name for name in names if _has_suffix(name, suffixes) and not is_skipped(name))


def folders_in(folder: Path) -> list[Path]:
    """Return the subfolders of a folder, sorted; of a link that is a file of text, its target."""
    try:
        with os.scandir(folder) as entries:
            folders = [_as_folder(entry) for entry in entries if not is_skipped(entry.name)]
    except OSError:
        return []
    return sorted(child for child in folders if child)


def _as_folder(entry: os.DirEntry[str]) -> Path | None:
    """Return the path of a folder, or of the one that a file of text links to; None for other files."""
    if entry.is_dir():
        return Path(entry.path)
    if os.path.splitext(entry.name)[1] or not entry.is_file() or entry.stat().st_size > _MAX_LINK_BYTES:
        return None
    try:
        target = Path(entry.path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    folder = os.path.normpath(os.path.join(os.path.dirname(entry.path), target))
    is_link = target and not os.path.isabs(target)
    return Path(folder) if is_link and os.path.isdir(folder) else None


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder and its subfolders with these suffixes, sorted.

    A folder that several links lead to is listed once under each, but not inside itself.
    """
    return sorted(_files_below(folder, suffixes, ()))


def _files_below(folder: Path, suffixes: Collection[str], above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that contains it
        return
    yield from files_in(folder, suffixes)
    for child in folders_in(folder):
        yield from _files_below(child, suffixes, (*above, real))


def is_skipped(name: str) -> bool:
    """Return whether the name of a file or folder is hidden, or that of a folder of a tool."""
    return name.startswith(".") or name in _TOOL_FOLDERS


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return os.path.splitext(name)[1].lower() in suffixes


def image_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path | str]:
    """Return the images among files and in folders and their subfolders, each once; a URL stays a text.

    The files are not opened. Raises InputError with every path that does not exist and every folder without images.
    """
    files: dict[str, Path | str] = {}
    problems = []
    for given in paths:
        if is_url(given):
            files[str(given)] = str(given)
            continue
        path = Path(given)
        if path.is_dir():
            inside = images_below(path)
            files |= {os.path.abspath(file): file for file in inside if os.path.abspath(file) not in files}
            if not inside:
                problems.append(f"{path}: this folder and its subfolders have no images")
        elif os.path.lexists(path):
            files.setdefault(os.path.abspath(path), path)
        else:
            problems.append(f"{path}: no such file or folder")
    if problems:
        raise InputError(problems)
    return list(files.values())


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the URL of an image."""
    return isinstance(path, str) and "://" in path
