"""Training and what follows from Python, with data and criterion as objects and without a recipe file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from datasets import Dataset, DatasetDict, Image
from torch import Tensor
from transformers import DetrForObjectDetection

import detr_ft
from detr_ft.criterion import BoxL1Loss, ClassCost, CrossEntropyLoss, HungarianMatcher
from detr_ft.data.export import write_coco
from detr_ft.data.integrity.usable_images import with_true_sizes
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.workflows.run import TrainOutcome

SPEC = "generated:workshop?train=12&validation=4&edge=64"
SMALL = {"num_train_epochs": 1, "per_device_train_batch_size": 4}


@dataclass(frozen=True)
class CornerCost:
    weight: float = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:  # [L, P, Q]
        apart = predictions.boxes[:, targets.image] - targets.boxes[:, None]
        return apart[..., :2].abs().amax(-1)


@dataclass(frozen=True)
class CornerLoss:
    weight: float = 1.0
    name: ClassVar[str] = "loss_corner"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:  # [L]
        apart = matches.predicted(predictions.boxes) - matches.target_values(targets.boxes)
        return matches.per_layer(apart[:, :2].abs().amax(-1)) / matches.num_boxes


CRITERION = detr_ft.SetCriterion(
    HungarianMatcher([ClassCost(), CornerCost()]), [CrossEntropyLoss(), BoxL1Loss(), CornerLoss()]
)


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return detr_ft.load_data(SPEC)


@pytest.fixture(scope="module")
def changed(data: DatasetDict) -> DatasetDict:
    """The same images, but not as they were read."""
    return DatasetDict({name: split.select(range(len(split))) for name, split in data.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, changed: DatasetDict) -> TrainOutcome:
    """A run on data and by a criterion that exist in this process alone."""
    folder = tmp_path_factory.mktemp("python")
    run = detr_ft.train(
        model=tiny_checkpoint, data=changed, output_dir=folder / "run", criterion=CRITERION, learning_rate=1e-3,
        num_train_epochs=1, per_device_train_batch_size=4,
    )  # fmt: skip
    assert isinstance(run, TrainOutcome)
    return run


def test_a_run_has_metrics_detections_and_a_report(trained: TrainOutcome, data: DatasetDict) -> None:
    assert trained.report.is_file()
    assert trained.metrics.map is not None
    assert trained.validation is not None
    assert trained.validation["image_id"][:] == data["validation"]["image_id"][:]
    assert len(trained.detections) == 4
    assert detr_ft.coco_metrics(trained.validation, trained.detections)["map"] == trained.metrics.map


def test_its_recipe_loads_and_its_data_are_reported_as_unreadable(trained: TrainOutcome, data: DatasetDict) -> None:
    recipe = detr_ft.load_recipe(trained.folder / "recipe.yaml")
    assert recipe.train.learning_rate == 1e-3
    assert recipe.criterion is not None
    assert recipe.criterion["losses"][2]["use"].endswith(":CornerLoss")
    assert recipe.data.source == "memory:12 train, 4 validation"
    for use in (lambda: detr_ft.evaluate(trained), lambda: detr_ft.train(recipe, output_dir=trained.folder / "again")):
        with pytest.raises(detr_ft.InputError, match=r"data\.source: memory:.*--data"):
            use()
    again = detr_ft.train(recipe, data=data, output_dir=trained.folder.with_name("again"))
    assert torch.equal(again.detections[0].scores, trained.detections[0].scores)


def test_later_verbs_accept_the_run_and_the_data(trained: TrainOutcome, data: DatasetDict, tmp_path: Path) -> None:
    evaluated = detr_ft.evaluate(trained, data)
    assert evaluated.metrics.coco() == trained.metrics.coco()
    assert evaluated.report is None
    assert detr_ft.evaluate(trained, trained.validation).metrics == evaluated.metrics
    assert detr_ft.evaluate(trained, data["validation"], output_dir=tmp_path / "out").metrics.map == trained.metrics.map
    assert (tmp_path / "out/report.html").is_file()
    (differences,) = detr_ft.compare([trained, trained], data).differences
    difference = differences["map"]
    assert difference is None or difference.value == 0
    assert detr_ft.doctor(data).findings == ()


def test_a_run_by_a_recipe_and_by_keywords_is_the_same(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tiny_checkpoint}}}\ndata: {{source: '{SPEC}', augment: none}}\n"
        f"train: {{output_dir: {tmp_path}/a, num_train_epochs: 1, per_device_train_batch_size: 4}}\n"
    )
    by_file = detr_ft.train(tmp_path / "recipe.yaml")
    by_keywords = detr_ft.train(
        model=tiny_checkpoint, data=SPEC, output_dir=tmp_path / "b", overrides=["data.augment=none"],
        num_train_epochs=1, per_device_train_batch_size=4,
    )  # fmt: skip
    by_recipe = detr_ft.train(detr_ft.load_recipe(tmp_path / "recipe.yaml"), output_dir=str(tmp_path / "c"))
    for other in (by_keywords, by_recipe):
        assert isinstance(other, TrainOutcome)
        for one, theirs in zip(by_file.detections, other.detections, strict=True):
            assert torch.equal(one.boxes, theirs.boxes)
        assert (other.folder / "model.safetensors").read_bytes() == (by_file.folder / "model.safetensors").read_bytes()


def test_settings_are_checked_together() -> None:
    with pytest.raises(detr_ft.InputError) as caught:
        detr_ft.train(model="embedded:small", data="x", num_epochs=3, learning_rate=-1)  # type: ignore[call-overload]
    output = "\n".join(caught.value.problems)
    for expected in ("train.num_epochs", "num_train_epochs?", "train.learning_rate", "train.output_dir"):
        assert expected in output
    with pytest.raises(detr_ft.InputError, match="recipe, or model, data"):
        detr_ft.train(model="embedded:small")
    with pytest.raises(detr_ft.InputError, match="--resume"):
        detr_ft.train("recipe.yaml", force=True)


def test_arguments_of_the_wrong_kind_are_refused_by_name(
    data: DatasetDict, tmp_path: Path, tiny_model: DetrForObjectDetection
) -> None:
    empty = DatasetDict(train=data["train"], validation=data["validation"].select([]))
    run = {"model": "embedded:small", "data": SPEC, "output_dir": tmp_path / "run"}
    (tmp_path / "recipe.yaml").write_text("train: {}")
    calls: list[tuple[Any, str]] = [
        (lambda: detr_ft.evaluate(tiny_model, data), r"^model: must be a run, .*DetrForObjectDetection\. Save it"),
        (lambda: detr_ft.train(**{**run, "model": tiny_model}), r"^model: must be a run, .*save_pretrained"),
        (lambda: detr_ft.predict(tiny_model, "x.png"), r"^model: must be a run, .*DetrForObjectDetection\. Save it"),
        (
            lambda: detr_ft.predict("no/model", "x.png", threshold=50),
            r"^threshold: must be a score from 0 to 1, got 50",
        ),
        (lambda: detr_ft.predict("no/model", "x.png", batch_size=0), r"^batch_size: must be a whole number of 1"),
        (lambda: detr_ft.predict("no/model", 3), r"^images: must be a list, got int"),
        (lambda: detr_ft.predict("no/model", ["x.png", 3]), r"^images: must be a path, got int"),
        (lambda: detr_ft.compare([tiny_model, "x"]), r"^models\[0\]: must be a run"),
        (lambda: detr_ft.export(tiny_model, "onnx", data), r"^model: must be a run"),
        (lambda: detr_ft.new_recipe(data, checkpoint=tiny_model), r"^checkpoint: must be a run"),
        (lambda: detr_ft.compare("runs/mine"), r"^models: must be a list, got the single value 'runs/mine'"),
        (lambda: detr_ft.compare(tmp_path), r"^models: must be a list"),
        (lambda: detr_ft.compare(["a", "b"], batch_size=0), r"^batch_size: "),
        (lambda: detr_ft.evaluate("embedded:small", data, batch_size=0), r"^batch_size: must be a whole number of 1"),
        (lambda: detr_ft.evaluate("embedded:small", 3), r"^data: must be a specification .* got int"),
        (lambda: detr_ft.doctor([data]), r"^data: must be a specification .* got list"),
        (lambda: detr_ft.doctor(DatasetDict()), r"^data: .* an empty DatasetDict"),
        (lambda: detr_ft.evaluate("embedded:small", empty), r"^data: the validation split has no images"),
        (lambda: detr_ft.doctor(empty), r"^data: the validation split has no images"),
        (lambda: detr_ft.new_recipe(data["train"].select([])), r"^data: the train split has no images"),
        (lambda: detr_ft.train(**{**run, "data": data["train"].select([])}), r"the train split has no images"),
        (lambda: detr_ft.doctor(data, num_queries=-1), r"^num_queries: must be a whole number of 1"),
        (lambda: detr_ft.doctor(data, longest_edge=8), r"^longest_edge: must be a whole number of 32"),
        (lambda: detr_ft.train(**run, seeds=2), r"^seeds \(--seeds\): must be a list .* got 2"),
        (lambda: detr_ft.train(**run, seeds="0,1"), r"^seeds \(--seeds\): must be a list .* got '0,1'"),
        (lambda: detr_ft.train(**run, seeds=[0, "1"]), r"^seeds \(--seeds\): must be whole numbers"),
        (lambda: detr_ft.train(**run, seeds=[1]), r"^seeds \(--seeds\): must be at least two"),
        (lambda: detr_ft.train(**{**run, "output_dir": 3}), r"^output_dir: must be a path, got int"),
        (lambda: detr_ft.train(3), r"^recipe: must be a file or a Recipe, got int"),
        (lambda: detr_ft.check(3), r"^recipe: must be a file or a Recipe, got int"),
        (lambda: detr_ft.probe(None), r"^recipe: must be a file or a Recipe, got NoneType"),
        (lambda: detr_ft.load_recipe(3), r"^path: must be a path, got int"),
        (lambda: detr_ft.load_recipe(tmp_path / "recipe.yaml", "train.seed=3"), r"overrides: .*\['train.seed=3'\]"),
        (lambda: detr_ft.train(**run, overrides="train.seed=3"), r"overrides: .*\['train.seed=3'\]"),
        (lambda: detr_ft.push(3), r"^run: must be the folder of a run, got int"),
        (lambda: detr_ft.replay(3), r"^capsule: must be a path, got int"),
    ]
    for call, message in calls:
        with pytest.raises(detr_ft.InputError, match=message):
            call()
    with pytest.raises(detr_ft.InputError) as caught:
        detr_ft.train(**run, criterion="x", optim={"layer_decay": 0.5}, callbacks=[detr_ft.Callback])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["criterion", "optim", "callbacks"]
    assert not (tmp_path / "run").exists()


def test_a_file_of_detections_is_evaluated_without_a_model(data: DatasetDict, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(detr_ft.InputError, match=r"model would have no effect: from_predictions"):
        detr_ft.evaluate("embedded:small", data, from_predictions=tmp_path / "found.json")
    assert detr_ft.evaluate(data=data, from_predictions=tmp_path / "found.json").metrics.map == 0


def test_a_criterion_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Odd:
        values: object = object
        weight: float = 1.0
        name: ClassVar[str] = "loss_odd"

        def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
            return predictions.boxes.sum()

    criterion = detr_ft.SetCriterion(HungarianMatcher([ClassCost()]), [Odd()])
    with pytest.raises(detr_ft.InputError, match=r"criterion: .*dataclasses"):
        detr_ft.train(model="embedded:small", data=SPEC, output_dir=tmp_path / "run", criterion=criterion)
    assert not (tmp_path / "run").exists()


def test_data_are_a_split_a_pair_or_a_dictionary(data: DatasetDict) -> None:
    from detr_ft.workflows.splits import read_data

    assert set(read_data(data["train"]).splits) == {"train"}
    pair = read_data((data["train"], data["validation"]))
    assert pair.source == SPEC
    pair = read_data((data["train"], data["validation"].select([0, 1])))
    assert pair.source == "memory:12 train, 2 validation"
    decoded = read_data(data.cast_column("image", Image())).splits
    assert decoded["train"][0]["image"].keys() == {"path", "bytes"}
    assert with_true_sizes(decoded, "train")["width"][:] == data["train"]["width"][:]
    with pytest.raises(detr_ft.InputError, match=r"no image, image_id, width, .*load_data"):
        read_data(Dataset.from_dict({"pixels": [1]}))


def test_unchanged_data_are_recorded_by_their_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detr_ft.workflows.splits import read_data

    monkeypatch.chdir(tmp_path)
    write_coco(detr_ft.load_data(SPEC), tmp_path / "photos")
    for spec in ("coco:photos", str(tmp_path / "photos")):
        assert read_data(detr_ft.load_data(spec)).source == spec
    read = detr_ft.load_data(Path("photos"))
    assert read_data(read).source == "photos"
    assert read_data(detr_ft.load_data("coco:photos", base=tmp_path)).source == f"coco:{tmp_path}/photos"
    assert read_data(detr_ft.load_data("photos", tmp_path)).source == str(tmp_path / "photos")
    assert read_data(detr_ft.load_data(SPEC, tmp_path)).source == SPEC
    train, validation = read["train"], read["validation"]
    for other in (
        DatasetDict(train=train),
        train,
        (validation, train),
        (train.filter(lambda row: row["image_id"] > 3), validation),
        (train.select(range(12)), validation),
        (train.shuffle(seed=0), validation),
        read.cast_column("image", Image()),
    ):
        assert read_data(other).source.startswith("memory:")
    read["train"].set_format("numpy")
    assert read_data(read).source.startswith("memory:")


def test_the_box_format_of_unchanged_data_is_recorded(tmp_path: Path) -> None:
    from PIL import Image as PILImage

    PILImage.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "boxes.csv").write_text("image,class,x1,y1,x2,y2\na.png,cat,8,8,30,30\n")
    data = detr_ft.load_data(f"csv:{tmp_path}/boxes.csv", box_format="xyxy")
    section = detr_ft.new_recipe(data, checkpoint="embedded:small").recipe.data
    assert (section.source, section.box_format) == (f"csv:{tmp_path}/boxes.csv", "xyxy")


def test_a_run_on_unchanged_data_needs_no_data_again(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(detr_ft.load_data(SPEC), tmp_path / "photos")
    data = detr_ft.load_data("coco:photos")
    runs = [
        detr_ft.train(model=tiny_checkpoint, data=given, output_dir=f"run-{number}", **SMALL)  # type: ignore[call-overload]
        for number, given in enumerate([data, "coco:photos"])
    ]
    recipes = [detr_ft.load_recipe(run.folder / "recipe.yaml") for run in runs]
    assert [recipe.data for recipe in recipes] == [recipes[0].data] * 2
    assert recipes[0].data.source == "coco:photos"
    assert detr_ft.evaluate(runs[0]).metrics.coco() == runs[0].metrics.coco()
    (differences,) = detr_ft.compare(runs).differences
    assert differences["map"] is None or differences["map"].value == 0
    assert json.loads((tmp_path / "run-0/predictions.json").read_text()) == json.loads(
        (tmp_path / "run-1/predictions.json").read_text()
    )
    files = [tmp_path / f"detections-{number}.json" for number in range(2)]
    for file, given in zip(files, [data, "coco:photos"], strict=True):
        detr_ft.evaluate(runs[0], given, save_predictions=file)
    assert files[0].read_text() == files[1].read_text()


def test_callbacks_are_called(tiny_checkpoint: Path, data: DatasetDict, tmp_path: Path) -> None:
    class Steps(detr_ft.Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step(self, model: object, step: int, terms: object, row: object) -> None:
            self.steps.append(step)

    counted = Steps()
    detr_ft.train(
        model=tiny_checkpoint, data=data, output_dir=tmp_path / "run", callbacks=[counted], num_train_epochs=1,
        per_device_train_batch_size=4,
    )  # fmt: skip
    assert counted.steps == [1, 2, 3]


def test_seeds_have_runs_and_statistics(tiny_checkpoint: Path, data: DatasetDict, tmp_path: Path) -> None:
    outcome = detr_ft.train(
        model=tiny_checkpoint, data=data, output_dir=tmp_path / "runs", seeds=[1, 2], num_train_epochs=1,
        per_device_train_batch_size=4,
    )  # fmt: skip
    assert list(outcome.runs) == [1, 2]
    maps = [outcome.runs[seed].metrics.map for seed in (1, 2)]
    assert outcome.statistics["map"].mean == pytest.approx(sum(maps) / 2)  # type: ignore[arg-type]
    assert outcome.statistics["map"].values == tuple(maps)


def test_checks_return_problems(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tiny_checkpoint}}}\ndata: {{source: x}}\ntrain: {{output_dir: y}}\n"
    )
    assert detr_ft.check(tmp_path / "recipe.yaml").problems == ()
    assert detr_ft.check(detr_ft.load_recipe(tmp_path / "recipe.yaml")).problems == ()
    (problem,) = detr_ft.check(tmp_path / "recipe.yaml", ["train.sed=1"]).problems
    assert "did you mean seed?" in problem


def test_a_new_recipe_needs_no_file(data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new = detr_ft.new_recipe(data, checkpoint="embedded:small")
    assert new.path is None
    assert new.recipe.model.checkpoint == "embedded:small"
    assert new.recipe.data.source == SPEC
    assert not list(tmp_path.iterdir())


def test_predictions_are_returned_and_written_on_request(tmp_path: Path, data: DatasetDict) -> None:
    from detr_ft.data.images import open_image

    open_image(data["train"][0]["image"]).save(tmp_path / "scene.png")
    outcome = detr_ft.predict("embedded:small", tmp_path / "scene.png", threshold=0)
    assert outcome.files == (tmp_path / "scene.png",)
    assert len(outcome.detections[0].scores) > 0
    assert outcome.predictions is None
    assert [file.name for file in tmp_path.iterdir()] == ["scene.png"]


@pytest.mark.slow
def test_the_library_is_silent(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """No message, bar or warning of ours: logging and progress are shown by the command alone."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import detr_ft\n"
        f"data = detr_ft.load_data({SPEC!r})\n"
        f"run = detr_ft.train(model={str(tiny_checkpoint)!r}, data=data, output_dir='run', **{SMALL})\n"
        "detr_ft.doctor(data); detr_ft.evaluate(run, data, output_dir='report'); detr_ft.compare([run, run], data)\n"
        "detr_ft.export(run, 'torch', data, output_dir='exported')\n"
        "detr_ft.predict(run, 'run/examples')\n"
        "model, processor = detr_ft.load_model(run)\n"
        "detr_ft.Detector.load('exported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
