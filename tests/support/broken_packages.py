"""Installed packages that can't be imported, as a build for another release of torch."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, package: str, code: str, *requirements: str) -> Path:
    """Write a package of version 0.20.1 and its metadata; return the folder for the import path."""
    path = folder / "site-packages"
    (path / package).mkdir(parents=True)
    (path / package / "__init__.py").write_text(code)
    metadata = path / f"{package}-0.20.1.dist-info"
    metadata.mkdir()
    lines = [f"Name: {package}", "Version: 0.20.1", *(f"Requires-Dist: {one}" for one in requirements)]
    (metadata / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n")
    (metadata / "top_level.txt").write_text(f"{package}\n")
    (metadata / "RECORD").write_text(f"{package}/__init__.py,,\n")
    return path
