"""The README's commands and its Python are run as they stand, in order, in one folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

import detr_ft
from detr_ft.cli.app import app
from detr_ft.data.export import write_coco
from detr_ft.data.images import open_image
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.recipe.load import load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Training with the recipe takes minutes, so it has two epochs here. With a GPU `new` would choose a checkpoint of the Hub.
SHORTER = {"train": ["train.num_train_epochs=2"], "new": ["--checkpoint", "embedded:small"]}


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(first: str) -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] == first]


def test_make_knows_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [words[1] for words in commands("make")]
    assert targets == ["quickstart", "test"]
    for target in targets:
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder: photos with COCO annotations, and a scene."""
    folder = tmp_path_factory.mktemp("readme")
    data = load_data("generated:workshop?train=24&validation=8")
    write_coco(data, folder / "photos")
    open_image(data["train"][0]["image"]).save(folder / "scene.png")
    return folder


def test_the_commands_run_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    verbs = []
    for words in commands("detr-ft"):
        result = CliRunner().invoke(app, words[1:] + SHORTER.get(words[1], []))
        assert result.exit_code == 0, f"{' '.join(words)}: {result.output}"
        verbs.append(words[1])
    assert verbs == ["doctor", "new", "check", "train", "train", "evaluate", "predict", "export", "push"]
    assert (folder / "runs/mine/onnx/model.onnx").is_file()
    assert {"config.json", "model.safetensors", "recipe.yaml", "log.jsonl", "metrics.json", "report.html"} <= {
        file.name for file in (folder / "runs/mine").iterdir()
    }
    assert len(list((folder / "predictions/pictures").glob("*.png"))) == 24


def test_the_session_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    session = blocks("python")[0]
    assert len([line for line in session.splitlines() if line.strip()]) < 30
    exec(compile(session.replace("num_train_epochs=20", "num_train_epochs=2"), "README.md", "exec"), names)  # noqa: S102 - our own README
    assert names["run"].metrics.map is not None
    assert len(names["run"].detections) == 8
    written = folder / "runs/center/recipe.yaml"
    with pytest.raises(InputError, match=r"CenterCost .*\.py:CenterCost"):
        load_recipe(written)
    monkeypatch.setattr(sys.modules["__main__"], "CenterCost", names["CenterCost"], raising=False)
    assert load_recipe(written).data.source == "coco:photos"


def test_the_python_page_runs_and_names_every_function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"`{command.callback.__name__}" in page or command.callback.__name__ == "demo"
    monkeypatch.chdir(folder)
    monkeypatch.setattr("logging.basicConfig", lambda **options: None)
    names: dict[str, Any] = {"__name__": "python_page"}
    for number, block in enumerate(blocks("python", page)):
        exec(compile(block, f"docs/python.md, block {number + 1}", "exec"), names)  # noqa: S102 - our own page
    assert names["run"].metrics.map == names["evaluated"].metrics.map
    assert names["evaluated"].metrics.intervals["map"] is not None
    assert {score for _, score, _ in names["some"]} <= set(names["detections"].scores.tolist())
    assert {name for _, _, name in names["first_class"]} <= {names["detector"].names[0]}
    assert names["result"].metrics["map"] is not None
    assert load_recipe(folder / "runs/python/recipe.yaml").data.source == "coco:photos"
    for name, columns in re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE):
        if name in detr_ft.__all__ and name not in ("load_data",):
            returned = get_type_hints(getattr(detr_ft, name))["return"]
            kind = returned if not get_args(returned) else get_args(returned)[0]
            for field in re.findall(r"`(\w+)`", columns.partition(":")[0]):
                assert field in {*kind.__dataclass_fields__, *vars(kind)}, f"{name}: {field}"


@pytest.mark.usefixtures("check_in_this_process")
def test_the_custom_term_passes_the_check(tmp_path: Path) -> None:
    (tmp_path / "nwd.py").write_text(blocks("python")[1])
    recipe = f"model: {{checkpoint: embedded:small}}\ndata: {{source: photos}}\n{blocks('yaml')[0]}train: {{output_dir: runs/x}}\n"
    (tmp_path / "mine.yaml").write_text(recipe)
    result = CliRunner().invoke(app, ["check", str(tmp_path / "mine.yaml")])
    assert result.exit_code == 0, result.output
    assert "nwd.py" in result.output
    assert "2 x NWDLoss (scale 0.05)" in result.output


def test_the_table_has_every_command() -> None:
    listed = re.findall(r"^\| `(\w+)", README, re.MULTILINE)
    registered = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert sorted(listed) == sorted(["detr", *registered])


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.md")),
]
LINKS = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{page.name}: {link}" for page, link in LINKS])
def test_links_are_valid(page: Path, link: str) -> None:
    file, _, heading = link.partition("#")
    if file.startswith("https://"):
        return
    assert (page.parent / file).exists()
    titles = re.findall(r"^#+ (.*)$", (page.parent / file).read_text(encoding="utf-8"), re.MULTILINE) if heading else []
    assert not heading or heading in [title.lower().replace(" ", "-") for title in titles]
