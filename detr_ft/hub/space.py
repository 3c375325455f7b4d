"""The files of a self-contained Gradio Space: demo, model, toolkit and pinned requirements."""

from __future__ import annotations

import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

from detr_ft.errors import InputError
from detr_ft.hub.card import license_of
from detr_ft.hub.upload_plan import MODEL, UploadPlan
from detr_ft.run_directory import DETECTIONS_SUFFIX, EXAMPLES
from detr_ft.utils.assets import demo_folder

_PACKAGE = Path(__file__).resolve().parents[1]
# Other files beside the code, as notes of a developer, are left out.
_SOURCES = {".py", ".pyi", ".typed", ".jinja", ".css", ".js", ".png"}
_LEFT_OUT = {"__pycache__", "_share"}
_APP = f'''\
"""The demo of detr-ft with the model in this folder."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).absolute().parent
sys.path[:0] = [str(HERE / "demo"), str(HERE)]

from app import serve

if __name__ == "__main__":
    serve(
        str(HERE / "model"),
        host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
        port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        images=sorted((HERE / "{EXAMPLES}").glob("*.jpg")),
        note="Images are processed on the machine that runs this page and deleted within a day.",
    )
'''


def write_space(plan: UploadPlan, name: str, folder: Path) -> None:
    """Write the Space of a run, with the name of its model on the Hub, into a folder.

    Raises InputError.
    """
    for file in plan.files:
        if MODEL.fullmatch(file.name) and file.parent == plan.run:
            _copy(file, folder / "model" / file.name)
        elif file.parent.name == EXAMPLES and not file.stem.endswith(DETECTIONS_SUFFIX):
            _copy(file, folder / EXAMPLES / file.name)
    for source, target in ((_PACKAGE, "detr_ft"), (demo_folder(), "demo")):
        for file in sorted(source.rglob("*")):
            inside = file.relative_to(source)
            if file.suffix in _SOURCES and not _LEFT_OUT.intersection(inside.parts) and file.is_file():
                _copy(file, folder / target / inside)
    (folder / "space.py").write_text(_APP, encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(), encoding="utf-8")
    (folder / "README.md").write_text(str(_card(plan.run, name)), encoding="utf-8")


def requirements() -> str:
    """Return the requirements of the demo, pinned to the installed releases. Raises InputError."""
    try:
        lines = requires("detr-ft") or []
    except PackageNotFoundError as error:
        raise InputError(
            "the requirements of detr-ft are not known. Install it: pip install 'detr-ft[demo]'"
        ) from error
    needed = [line for line in lines if "extra ==" not in line or re.search(r"extra == .demo", line)]
    names = [name for line in needed for name in re.findall(r"^[\w.-]+", line)]
    try:
        # A local version after the plus is a build for this machine, which the index of the Space may not have.
        return "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in sorted(names))
    except PackageNotFoundError as error:
        raise InputError(f"a Space needs {error.name}. Run: pip install 'detr-ft[demo]'") from error


def _card(run: Path, name: str) -> SpaceCard:
    title = name.rsplit("/", 1)[-1]
    data = SpaceCardData(
        title=title,
        emoji="🔎",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="space.py",
        license=license_of(run),
        models=[name],
        suggested_hardware="cpu-basic",
        tags=["object-detection", "detr", "detr-ft"],
        pinned=False,
    )
    return SpaceCard(
        f"---\n{data.to_yaml()}\n---\n\nDetections of [{title}](https://huggingface.co/{name}) in your pictures.\n"
    )


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
