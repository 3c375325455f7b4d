"""The files of a Gradio Space: the demo with one model, the toolkit and pinned requirements, so that it starts by itself."""

from __future__ import annotations

import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

from detr_ft.errors import InputError
from detr_ft.hub.card import licence_of
from detr_ft.hub.upload_plan import MODEL, plan
from detr_ft.run_directory import EXAMPLES
from detr_ft.utils.assets import demo_folder

_PACKAGE = Path(__file__).resolve().parents[1]
_APP = '''\
"""The demo of detr-ft with the model that lies beside it."""

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
        images=sorted((HERE / "examples").glob("*.jpg")),
        note="Images are processed on the machine that runs this page and deleted within a day.",
    )
'''


def write_space(run: Path, name: str, folder: Path) -> None:
    """Write the Space of a run, the model of which is called `name` on the Hub, into a folder. Raises InputError."""
    files = plan(run)
    for file in files:
        if MODEL.fullmatch(file.name) and file.parent == run:
            _copy(file, folder / "model" / file.name)
        elif file.parent.name == EXAMPLES and not file.stem.endswith("-found"):
            _copy(file, folder / EXAMPLES / file.name)
    for source, target in ((_PACKAGE, "detr_ft"), (demo_folder(), "demo")):
        shutil.copytree(source, folder / target, ignore=shutil.ignore_patterns("__pycache__", "_share", "*.pyc"))
    (folder / "space.py").write_text(_APP, encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(), encoding="utf-8")
    (folder / "README.md").write_text(str(_card(run, name)), encoding="utf-8")


def requirements() -> str:
    """What the demo needs, at the releases that are installed here: those the run was made with, and Gradio's."""
    try:
        asked = requires("detr-ft") or []
    except PackageNotFoundError as error:
        raise InputError("a Space needs to know what detr-ft needs: install it, pip install 'detr-ft[demo]'") from error
    needed = [one for one in asked if "extra ==" not in one or re.search(r"extra == .demo", one)]
    names = [one for line in needed for one in re.findall(r"^[\w.-]+", line)]
    try:
        # What comes after the plus is a build for some machine, which the Space's own index need not have.
        return "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in sorted(names))
    except PackageNotFoundError as error:
        raise InputError(f"a Space needs {error.name}: pip install 'detr-ft[demo]'") from error


def _card(run: Path, name: str) -> SpaceCard:
    title = name.rsplit("/", 1)[-1]
    data = SpaceCardData(
        title=title,
        emoji="🔎",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=".".join(platform.python_version_tuple()[:2]),
        app_file="space.py",
        license=licence_of(run),
        models=[name],
        suggested_hardware="cpu-basic",
        tags=["object-detection", "detr", "detr-ft"],
        pinned=False,
    )
    return SpaceCard(
        f"---\n{data.to_yaml()}\n---\n\nWhat [{title}](https://huggingface.co/{name}) finds in a picture.\n"
    )


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
