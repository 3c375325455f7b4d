"""No verb runs code that came with a model, a run or data, unless the user consents; a recipe's code is announced first."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import tiny_config
from transformers import DetrForObjectDetection, DetrImageProcessor
from typer.testing import CliRunner

import detr_ft
from detr_ft.cli.app import app
from detr_ft.data.generated.generate import CLASSES
from detr_ft.errors import InputError
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import plan
from detr_ft.utils.assets import demo_folder

CANARIES = "CANARIES"  # the variable with the folder to which code that runs writes the name of its file
CODE = """\
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

Path(os.environ["CANARIES"], Path(__file__).name).touch()
print("RUNS", Path(__file__).name, file=sys.stderr)


@dataclass(frozen=True)
class Mine:
    weight: float = 1.0
    name: ClassVar[str] = "loss_{name}"

    def __call__(self, predictions, targets, matches):
        apart = matches.predicted(predictions.boxes) - matches.target_values(targets.boxes)
        return matches.per_layer((apart**2).sum(-1)) / {divisor}


@dataclass(frozen=True)
class Same:
    def __call__(self, sample, random, another):
        return sample


Config = Model = Processor = Mine
"""
AUTO_MAP = {
    "config.json": {"AutoConfig": "beside.Config", "AutoModelForObjectDetection": "beside.Model"},
    "preprocessor_config.json": {"AutoImageProcessor": "beside.Processor"},
}
OWN_CODE = ["losses.py:Mine", "module_of_losses:Mine"]


def canaries(folder: Path) -> set[str]:
    """Return the names of the files whose code ran since the last call."""
    names = {file.name for file in (folder / "canaries").iterdir()}
    for name in names:
        (folder / "canaries" / name).unlink()
    return names


def criterion(*losses: str) -> dict[str, Any]:
    return {
        "matcher": {"use": "HungarianMatcher", "costs": [{"use": "BoxL1Cost"}]},
        "losses": [{"use": "CrossEntropyLoss"}, *({"use": name} for name in losses)],
    }


def write_recipe(file: Path, folder: Path, *losses: str, augment: object = "none") -> Path:
    recipe = {
        "model": {"checkpoint": f"{folder}/model"},
        "data": {"source": f"coco:{folder}/data", "augment": augment, "longest_edge": 64},
        "train": {"output_dir": f"{folder}/run", "num_train_epochs": 1, "per_device_train_batch_size": 4},
    }
    file.write_text(yaml.safe_dump(recipe | ({"criterion": criterion(*losses)} if losses else {})))
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with code: `model` is a run from elsewhere, `data` a data set, `plain.yaml` a recipe on them without code."""
    folder = tmp_path_factory.mktemp("made")
    data, model = folder / "data", folder / "model"
    detr_ft.doctor("generated:workshop?train=4&validation=2&edge=64", write_coco=data)
    torch.manual_seed(0)
    DetrForObjectDetection(tiny_config(names=tuple(CLASSES["workshop"]))).save_pretrained(model)
    DetrImageProcessor(size={"max_height": 64, "max_width": 64}).save_pretrained(model)
    for name, auto_map in AUTO_MAP.items():
        content = json.loads((model / name).read_text()) | {"auto_map": auto_map}
        content |= {"detr_ft": {"criterion": criterion(OWN_CODE[1])}} if name == "config.json" else {}
        (model / name).write_text(json.dumps(content))
    write_recipe(model / "recipe.yaml", folder, *OWN_CODE, augment={"use": "augment.py:Same"})
    write_recipe(folder / "plain.yaml", folder)
    (model / "custom_generate").mkdir()
    (folder / "modules").mkdir()
    (folder / "canaries").mkdir()
    for file in [
        *(model / name for name in ("losses.py", "augment.py", "beside.py", "modeling_detr.py", "custom_generate/generate.py")),
        *(data / name for name in ("data.py", "dataset.py", "conftest.py", "sitecustomize.py", "__init__.py", "torch.py")),
        folder / "modules/module_of_losses.py",
    ]:  # fmt: skip
        file.write_text(CODE.format(name=file.stem, divisor="matches.num_boxes"))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folders for a user without runs, who works in the folder of the data."""
    folder = tmp_path / "made"
    shutil.copytree(made, folder)
    for file in [*folder.glob("*.yaml"), folder / "model/recipe.yaml"]:
        file.write_text(file.read_text().replace(str(made), str(folder)))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv(CANARIES, str(folder / "canaries"))
    monkeypatch.syspath_prepend(folder / "modules")
    monkeypatch.delitem(sys.modules, "module_of_losses", raising=False)
    monkeypatch.chdir(folder / "data")
    return folder


@pytest.fixture
def capsule(folder: Path) -> Path:
    """The capsule of a run from elsewhere, whose state names code."""
    code = folder / "model/capsules.py"
    code.write_text(CODE.format(name="capsules", divisor="0"))
    recipe = write_recipe(folder / "model/other.yaml", folder, "capsules.py:Mine", "module_of_losses:Mine")
    assert CliRunner().invoke(app, ["train", str(recipe), f"train.output_dir={folder}/sender"]).exit_code == 1
    canaries(folder)
    (written,) = (folder / "sender/failures").iterdir()
    shutil.copytree(written, folder / "capsule")
    sys.modules.pop("module_of_losses")
    return folder / "capsule"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The criteria of the pages that `demo` shows, in place of a server."""
    pytest.importorskip("gradio", reason="the demo needs gradio: pip install detr-ft[demo]")
    monkeypatch.syspath_prepend(demo_folder())
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    import app as page

    criteria: list[Any] = []

    class Page:
        def block_thread(self) -> None:
            """Return at once."""

    def build_page(*arguments: Any) -> Page:
        criteria.append(arguments[5])
        return Page()

    monkeypatch.setattr(page, "build_page", build_page)
    monkeypatch.setattr(page, "launch", lambda *_: "http://127.0.0.1")
    return criteria


# The arguments of each verb, in the folder of the data; OUT is a new folder.
COMMANDS: dict[str, list[str]] = {
    "quickstart": ["--output-dir", "OUT"],
    "doctor": [".", "--report", "OUT.html", "--fix", "OUT", "--augment", "../plain.yaml", "--augment-out", "OUT.png"],
    "new": [".", "-o", "OUT.yaml", "--checkpoint", "../model"],
    "check": ["../plain.yaml"],
    "train": ["../plain.yaml", "train.output_dir=OUT"],
    "replay": ["../capsule"],
    "evaluate": ["../model", "--data", ".", "--out", "OUT"],
    "compare": ["../model", "../model", "--data", "."],
    "predict": ["../model", ".", "--out", "OUT"],
    "demo": ["../model", "--data", ".", "--compare", "../model"],
    "push": ["../model", "owner/name", "--dry-run", "--space"],
    "export": ["../model", "--to", "torch", "--data", ".", "--out", "OUT"],
}
VERBS = [command.callback.__name__ for command in app.registered_commands if command.callback]


def invoke(verb: str, arguments: list[str], out: Path) -> Any:
    return CliRunner().invoke(app, [verb, *(argument.replace("OUT", str(out)) for argument in arguments)])


def stop(*_: object, **__: object) -> None:
    raise InputError("stopped")


def test_every_verb_is_tried() -> None:
    assert list(COMMANDS) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_code_of_models_and_data_does_not_run(
    verb: str, folder: Path, shown: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    # What takes long: the training that `train` tries, and the last part of an export.
    monkeypatch.setattr("detr_ft.workflows.quickstart.run", stop)
    monkeypatch.setattr(
        "detr_ft.workflows.quickstart.read_source", lambda _: detr_ft.load_data("generated:workshop?train=2")
    )
    monkeypatch.setattr("detr_ft.workflows.export.trace", stop)
    if verb == "replay":
        request.getfixturevalue("capsule")
    result = invoke(verb, COMMANDS[verb], tmp_path / "out")
    assert canaries(folder) == set()
    assert "runs code" not in result.output
    assert result.exit_code == (2 if verb in ("quickstart", "export", "replay") else 0), result.output
    assert ("error: stopped" in result.output) == (verb in ("quickstart", "export"))
    if verb in ("replay", "demo"):
        assert "--trust-code" in result.output
        assert "module_of_losses" in result.output
        assert f"{folder}/model/{'capsules' if verb == 'replay' else 'losses'}.py" in result.output.replace(
            "../model", f"{folder}/model"
        )
    assert len(shown) == (verb == "demo")
    assert all("Mine" not in str(one) for one in shown)


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_the_recipe_of_a_run_that_is_not_named_does_not_run(verb: str, folder: Path, tmp_path: Path) -> None:
    """They read the data from it."""
    models = ["../model"] * (2 if verb == "compare" else 1)
    result = invoke(verb, [*models, *(["--out", "OUT"] if verb == "evaluate" else [])], tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert canaries(folder) == set()


def test_a_capsule_runs_code_with_consent(capsule: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"capsules\.py.*trust_code=True(.|\n)*module_of_losses.*trust_code=True"):
        detr_ft.replay(capsule)
    assert canaries(folder) == set()
    result = CliRunner().invoke(app, ["replay", str(capsule), "--trust-code"])
    assert result.exit_code == 0, result.output
    assert result.output.count("runs code: ") == 2
    assert result.output.index(f"runs code: {folder}/model/capsules.py") < result.output.index("origin: loss")
    assert result.output.index("runs code: module module_of_losses") < result.output.index("RUNS module_of_losses.py")
    assert canaries(folder) == {"module_of_losses.py"}  # the file is loaded in this process already
    assert detr_ft.replay(capsule, trust_code=True).verdict is not None


def test_a_capsule_of_an_own_run_runs_code_as_it_was(capsule: Path, folder: Path) -> None:
    own = folder / "sender/failures" / next((folder / "sender/failures").iterdir()).name
    assert detr_ft.replay(own).verdict is not None
    (folder / "model/capsules.py").write_text(CODE.format(name="changed", divisor="matches.num_boxes"))
    with pytest.raises(InputError, match=r"capsules\.py.*--trust-code"):
        detr_ft.replay(own)
    assert "capsules.py" not in canaries(folder)
    state = json.loads((own / "state.json").read_text())
    state["criterion"] = criterion()
    (own / "state.json").write_text(json.dumps(state))
    assert detr_ft.replay(own).verdict is None  # without code as before


def demo(model: Path | str, *options: str) -> str:
    tempfile.tempdir = None  # each page has its own
    result = CliRunner().invoke(app, ["demo", str(model), "--data", ".", *options])
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_a_page_runs_the_code_of_a_run_with_consent(folder: Path, shown: list[Any]) -> None:
    output = demo("../model", "--trust-code")
    assert canaries(folder) == {"losses.py", "module_of_losses.py"}  # and not the augmentation, nor beside.py
    assert output.index("runs code: ../model/losses.py") < output.index("RUNS losses.py")
    assert str(shown[0]).count("Mine") == 2


def test_a_page_runs_the_code_of_an_own_run(folder: Path, shown: list[Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "../model/recipe.yaml", f"train.output_dir={tmp_path}/own"])
    assert result.exit_code == 0, result.output
    assert result.output.count("runs code: ") == 3
    for name in ("losses.py", "augment.py"):
        assert result.output.index(f"runs code: ../model/{name}") < result.output.index(f"RUNS {name}")
    assert canaries(folder) == {"losses.py", "module_of_losses.py", "augment.py"}
    assert "--trust-code" not in demo(tmp_path / "own")
    assert canaries(folder) == {"losses.py"}  # the copy in the run
    assert str(shown[0]).count("Mine") == 2
    (tmp_path / "own/losses.py").write_text(CODE.format(name="changed", divisor="matches.num_boxes"))
    assert "--trust-code" in demo(tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    assert "--trust-code" in demo(tmp_path / "copy")
    assert canaries(folder) == set()


@pytest.mark.parametrize("verb", ["check", "doctor"])
def test_code_of_a_named_recipe_is_announced_before_it_runs(verb: str, folder: Path, tmp_path: Path) -> None:
    out = ["--augment-out", str(tmp_path / "out.png")]
    arguments = ["../model/recipe.yaml"] if verb == "check" else [".", "--augment", "../model/recipe.yaml", *out]
    result = CliRunner().invoke(app, [verb, *arguments])
    assert result.exit_code == 0, result.output
    for name in ("losses.py", "augment.py"):
        assert result.output.count(f"runs code: ../model/{name}") == 1
        assert result.output.index(f"runs code: ../model/{name}") < result.output.index(f"RUNS {name}")
    assert result.output.index("runs code: module module_of_losses") < result.output.index("RUNS module_of_losses.py")


def test_bytecode_beside_a_file_does_not_run(folder: Path) -> None:
    """Its header may state the size and time of the file that is announced."""
    import importlib.util
    import os
    import py_compile

    file, other = folder / "model/losses.py", folder / "model/others.py"
    other.write_text(file.read_text().replace('print("RUNS"', 'print("EVIL"'))
    times = file.stat().st_mtime_ns
    os.utime(other, ns=(times, times))
    cache = Path(importlib.util.cache_from_source(str(file)))
    py_compile.compile(str(other), str(cache), dfile=str(file))
    result = CliRunner().invoke(app, ["check", "../model/recipe.yaml"])
    assert result.exit_code == 0, result.output
    assert "RUNS losses.py" in result.output
    assert "EVIL" not in result.output


def test_a_space_has_no_code_of_the_run(folder: Path, tmp_path: Path) -> None:
    write_space(plan(folder / "model"), "owner/name", tmp_path / "space")
    assert sorted(file.name for file in (tmp_path / "space/model").rglob("*")) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    assert "trust_code" not in (tmp_path / "space/space.py").read_text()
