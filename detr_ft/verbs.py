"""What the commands evaluate, predict, push and check do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import track

from detr_ft.chosen import recipe_of, split_of
from detr_ft.criterion import check_criterion
from detr_ft.criterion.serialization import configure
from detr_ft.data import load_data, open_image
from detr_ft.data.augmentation.check import try_augmentation
from detr_ft.data.sources import category_numbers
from detr_ft.errors import UserError
from detr_ft.evaluating import evaluate_model, evaluate_predictions, refuse_used
from detr_ft.evaluation.coco_results import coco_results
from detr_ft.hub.dataset import holds_data, push_dataset
from detr_ft.hub.push import push, push_space
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import plan
from detr_ft.inference import Detector
from detr_ft.recipe import HubSection, Recipe, load_recipe
from detr_ft.run import probe_recipe
from detr_ft.training.failures.capsule import in_words
from detr_ft.training.failures.replay import Capsule, replay
from detr_ft.utils.components import ConfigureError, code_files
from detr_ft.utils.drawing import draw
from detr_ft.utils.progress import console, say

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_HEADLINES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")


def evaluate_by(
    model: str | None,
    data: str | None,
    split: str | None,
    batch_size: int,
    box_format: str | None = None,
    out: Path | None = None,
    save_predictions: Path | None = None,
    from_predictions: Path | None = None,
) -> dict[str, Any]:
    """The COCO figures of a checkpoint, or of a file of detections, by default on what the checkpoint's run held out.

    Boxes are in `box_format`; where it is None, as the run's recipe says of its own data, or as recognised of other data.
    """
    if model is None and (from_predictions is None or data is None):
        raise UserError("give a model to evaluate, or --from-predictions FILE and --data")
    if from_predictions is not None and save_predictions is not None:
        raise UserError("--save-predictions and --from-predictions don't go together: the file is there already")
    chosen = split_of(model or "", data, split, box_format)
    source = data or "held-out images"
    run = None if data else recipe_of(Path(model or ""))
    numbers = category_numbers(data or (run.data.source if run else ""))
    if from_predictions is not None:
        return evaluate_predictions(from_predictions, chosen, source, numbers, out)
    assert model is not None
    return evaluate_model(model, chosen, source, batch_size, out, save_predictions, numbers)


def figures_table(metrics: dict[str, Any]) -> str:
    """The headline figures and those of each class, as plain text."""
    lines = [f"{name:<12} {_figure(metrics[name])}" for name in _HEADLINES]
    width = max([5, *map(len, metrics["per_class"])])
    lines.append(f"\n{'class':<{width}}  boxes    map  map_50")
    for name, one in metrics["per_class"].items():
        lines.append(f"{name:<{width}}  {one['count']:>5}  {_figure(one['map'])}   {_figure(one['map_50'])}")
    return "\n".join(lines)


def predict_files(model: str, paths: Sequence[Path], out: Path, threshold: float | None, batch_size: int) -> None:
    """Write `predictions.json` (COCO results, each with its file) and an annotated copy of each image into a new folder.

    Without a threshold each class has the model's own.

    Raises UserError for what is no image, all at once, before the model is run, and for a folder that holds something.
    """
    files = _image_files(paths)
    refuse_used(out)
    detector = Detector.load(model)
    found = [
        detector.believed(one, threshold)
        for one in detector.detect(track(files, "detecting", console=console, transient=True), batch_size)
    ]
    ids = list(range(1, len(files) + 1))
    results = [
        row | {"category": detector.names[int(row["category_id"])], "file_name": str(files[int(row["image_id"]) - 1])}
        for row in coco_results(found, ids, list(range(len(detector.names))))
    ]
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "predictions.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        for number, (file, one) in enumerate(zip(files, found, strict=True), start=1):
            picture = draw(open_image(file), one.boxes, one.labels, detector.names, one.scores)
            picture.save(out / f"{number:04d}-{file.stem}.png")
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}") from error
    say(
        f"{len(results)} boxes in {len(files)} images: {out / 'predictions.json'} and a picture of each image beside it"
    )


def push_run(
    run: Path, name: str | None, public: bool | None, dry_run: bool, space: bool = False, dataset: bool = False
) -> None:
    """Push a run under a name, or the one of its recipe, with its data and a Space if asked for; or list what would be pushed.

    All have the same name, and are public or private alike; `public` None leaves that to the recipe.
    """
    recipe = recipe_of(run)
    if dataset and recipe is None:
        raise UserError(f"{run} holds no recipe.yaml that names its data, so there are none to push")
    if dry_run:
        say_plan(run, recipe.data.source if recipe and dataset else None, space)
        return
    hub = recipe.hub if recipe else HubSection()
    name = name or hub.repo_id
    if name is None:
        raise UserError("give a name to push to, owner/name, or hub.repo_id in the recipe")
    private = hub.private if public is None else not public
    options = [*(["--dataset"] if dataset else []), *(["--space"] if space else [])]
    if recipe and dataset:
        print(push_data(recipe, name, private))
    print(push(run, name, private, name if dataset else None, options))
    if space:
        print(push_space(run, name, private, options))


def say_plan(run: Path, source: str | None, space: bool) -> None:
    """List what a push would upload, without a network."""
    print("\n".join(str(file) for file in plan(run)))
    if source is not None:
        print(f"data set: all images and boxes of {source}")
    if space:
        with TemporaryDirectory() as name:
            write_space(run, "you/space", Path(name))
            files = [file.relative_to(name).as_posix() for file in Path(name).rglob("*") if file.is_file()]
        print("\n".join(f"space: {file}" for file in sorted(files)))


def push_data(recipe: Recipe, name: str, private: bool) -> str:
    """Push the data of a recipe as a data set of a name; one that is there already is left as it is."""
    if holds_data(name):
        return f"the data set {name} is on the Hub already, and is left as it is"
    return push_dataset(load_data(recipe.data.source, box_format=recipe.data.box_format), name, {}, private)


def replay_capsule(folder: Path) -> str:
    """Take the step of a failure capsule again, and say what is wrong with it."""
    capsule = Capsule(folder)
    described, place = capsule.told["criterion"], Path(capsule.told["facts"].get("folder", "."))
    for file in code_files(described, place):
        say(f"{folder} runs code: {file}")
    try:
        criterion = configure(described, place)
    except ConfigureError as error:
        raise UserError(
            [f"{folder}: its criterion can't be built: {message}" for _, message in error.problems]
        ) from error
    say(f"step {capsule.number}, images {in_words(capsule.images)}; then: {capsule.told['why']}")
    with console.status("taking the step again"):
        verdict = replay(capsule, criterion)
    if verdict is None:
        return (
            "Here the step can be taken: on a CPU, in its precision and with dropout of its own, every number is finite. "
            "If it fails again elsewhere, precision or hardware has a part in it (train with bf16 and fp16 off, or from a lower "
            "learning rate), or a term that does not answer the same twice"
        )
    return f"origin: {verdict.origin}\n{verdict.words}"


def check_recipe(path: Path, overrides: Sequence[str]) -> None:
    """Check a recipe and try its criterion and augmentation; raises UserError with everything that is wrong."""
    recipe, criterion = load_recipe(path, overrides)
    for file in code_files([recipe.criterion, recipe.data.augment], path.parent):
        say(f"{path} runs code: {file}")
    problems = [f"criterion: {problem}" for problem in check_criterion(criterion)]
    augment = recipe.build_augmentation()
    fault = augment and try_augmentation(augment)
    if fault:
        problems.append(f"data.augment: {fault}")
    if problems:
        raise UserError([f"{path}: {problem}" for problem in problems])
    say(str(criterion))
    say(
        f"{path}: the recipe is sound. Its criterion was tried with many objects, none and more than queries, with extreme "
        "and half-precision values, in other orders and shares, and by training, and its augmentation on made-up images: no fault was found. "
        "Data and checkpoint were not looked at so far: --probe does that"
    )


def probe_run(path: Path, overrides: Sequence[str]) -> list[str]:
    """Try a recipe's run out on its data, and say what came of it. Raises UserError."""
    return probe_recipe(*load_recipe(path, overrides))


def _image_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    problems = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
            files += inside
            if not inside:
                problems.append(f"{path}: this folder holds no images")
        elif path.is_file():
            files.append(path)
        else:
            problems.append(f"{path}: no such file or folder")
    for file in files:
        try:
            open_image(file)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return files


def _figure(value: float | None) -> str:
    return " none" if value is None else f"{value:.3f}"
