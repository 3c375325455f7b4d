"""A wheel works as well as the clone: recipes, demo, report template and checkpoint are found from it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSIDE = """
import sys
sys.path.insert(0, sys.argv[1])
import detr_ft
assert detr_ft.__file__.startswith(sys.argv[1]), detr_ft.__file__
from detr_ft.utils.assets import demo_folder, embedded_checkpoint, recipes_folder
from detr_ft.workflows.quickstart import RECIPE
from detr_ft.recipe.load import load_recipe
from detr_ft.report.content import RunReport
from detr_ft.report.page import render_page
from detr_ft.inference import Detector
for place in (demo_folder() / "app.py", recipes_folder() / RECIPE, embedded_checkpoint("small") / "config.json"):
    assert str(place).startswith(sys.argv[1]), place
    assert place.is_file(), place
from pathlib import Path
for name in ("py.typed", "__init__.pyi", "recipe/template.yaml.jinja"):
    assert (Path(sys.argv[1]) / "detr_ft" / name).is_file(), name
load_recipe(recipes_folder() / RECIPE)
render_page(RunReport(title="t", verdict="v"))
from detr_ft.data.doctor import examine
from detr_ft.data.sources.load import load_data
from detr_ft.report.doctor import render_report
data = load_data("generated:shapes?train=1&validation=0&edge=64")
render_report(examine(data), data)
print(len(Detector.load("embedded:small").names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_settings_stand_in_their_own_tables() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    wheel = tools["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["detr_ft"], "force-include": wheel["force-include"]}
    assert {"files", "mypy_path", "explicit_package_bases"} <= tools["mypy"].keys()


def test_it_has_the_files_of_the_command_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "detr_ft/_share/recipes/quickstart/workshop.yaml" in names
    assert "detr_ft/_share/demo/app.py" in names
    assert not [name for name in names if name.startswith(("tests/", "recipes/", "demo/")) or "__pycache__" in name]
    assert wheel.stat().st_size < 12_000_000


def test_the_package_works_from_it(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "8"
