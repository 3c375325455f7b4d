"""A virtual environment with exactly what a list of requirements brings, made of the packages that are installed here."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement


def clean_environment(requirements: str, folder: Path) -> Path:
    """Make it; returns its Python. As pip would, but by links to installed files: nothing is downloaded or built.

    Raises AssertionError where a requirement is another release than the one that is installed.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    waiting, visited = [Requirement(line) for line in requirements.splitlines()], set[tuple[str, frozenset[str]]]()
    while waiting:
        one = waiting.pop()
        key = (one.name.lower().replace("_", "-"), frozenset(one.extras))
        if key in visited:
            continue
        visited.add(key)
        installed = distribution(one.name)
        assert one.specifier.contains(installed.version.partition("+")[0], prereleases=True), (
            f"{one}: {installed.version}"
        )
        _link(installed.files or [], packages)
        waiting += [
            needed
            for needed in map(Requirement, installed.requires or [])
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ["", *one.extras])
        ]
    return folder / "bin/python"


def _link(files: list[object], packages: Path) -> None:
    for file in files:
        source, target = Path(file.locate()), packages / str(file)  # type: ignore[attr-defined]
        if ".." in Path(str(file)).parts or not source.is_file():  # scripts, and caches that were not made
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            continue
        except OSError:  # another file system
            target.symlink_to(source)
