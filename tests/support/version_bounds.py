"""Install the lowest or newest versions that pyproject.toml allows and run the main verbs.   python version_bounds.py lowest FOLDER

Every direct dependency and extra is installed at its lower bound ("lowest") or at its newest release ("newest"); the package
itself is installed without dependencies. Then train, evaluate, predict, export and the demo run on the embedded model.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = "generated:workshop?train=16&validation=4"
RECIPE = ROOT / "recipes/quickstart/workshop.yaml"
DEMO_START_SECONDS = 180
DEMO_PORT = 7871


def requirements(which: str) -> list[str]:
    """The dependencies of pyproject.toml with those of its extras, at their lower bounds or without an upper limit."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated: list[str] = project["dependencies"] + [
        name for extra in project["optional-dependencies"].values() for name in extra
    ]
    if which == "newest":
        return stated
    return [re.sub(r">=([\w.]+).*", r"==\1", requirement) for requirement in stated]


def install(which: str, environment: Path) -> Path:
    """Make the environment where it is absent and return its Python."""
    python = environment / "bin/python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *(["--upgrade"] if which == "newest" else []), *requirements(which)], check=True)
    subprocess.run(
        [*pip, "--no-deps", "hatchling", "editables", "pathspec", "pluggy", "packaging", "trove-classifiers"],
        check=True,
    )
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
    return python


def run(python: Path, folder: Path, arguments: Sequence[str]) -> None:
    """Run the command and stop with its output where it fails."""
    start = time.monotonic()
    completed = subprocess.run(
        [str(python), "-m", "detr_ft", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        raise SystemExit(
            f"detr-ft {' '.join(arguments)} ended with {completed.returncode}:\n{completed.stdout}{completed.stderr}"
        )
    print(f"detr-ft {arguments[0]}: passed in {time.monotonic() - start:.0f} s", flush=True)


def start_demo(python: Path, folder: Path) -> None:
    """Start the demo on a run and fetch its page."""
    command = [str(python), "-m", "detr_ft", "demo", "run", "--port", str(DEMO_PORT)]
    demo = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(DEMO_START_SECONDS):
            time.sleep(1)
            if demo.poll() is not None:
                raise SystemExit(f"detr-ft demo ended: {demo.stderr.read() if demo.stderr else ''}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{DEMO_PORT}/config") as page:
                    assert page.status == 200
                print("detr-ft demo: passed", flush=True)
                return
            except OSError:
                continue
        raise SystemExit("detr-ft demo did not start")
    finally:
        demo.kill()


def main() -> None:
    """Install, print the versions, run the verbs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("environment", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    python = install(arguments.which, arguments.environment.absolute())
    names = [re.split(r"[>=\[ ]", requirement)[0] for requirement in requirements(arguments.which)]
    list_versions = "import importlib.metadata as m, sys; print(sys.version.split()[0], *(f'{n}=={m.version(n)}' for n in sys.argv[1:]))"
    subprocess.run([str(python), "-c", list_versions, *names], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overrides = [f"data.source={DATA}", "train.num_train_epochs=1", "train.output_dir=run"]
        run(python, folder, ["--help"])
        run(python, folder, ["train", str(RECIPE), *overrides])
        run(python, folder, ["evaluate", "run", "--data", DATA, "--out", "report"])
        run(python, folder, ["predict", "run", str(ROOT / "recipes/quickstart/workshop.png"), "--out", "predicted"])
        run(python, folder, ["export", "run", "--to", "onnx", "--data", DATA])
        start_demo(python, folder)
    print(f"{arguments.which} versions: all passed")


if __name__ == "__main__":
    main()
