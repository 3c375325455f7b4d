"""Push a run to the Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from detr_ft.data import load_data
from detr_ft.errors import InputError
from detr_ft.hub.dataset import holds_data, push_dataset
from detr_ft.hub.push import push, push_space
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import plan
from detr_ft.recipe import HubSection, Recipe
from detr_ft.workflows.splits import recipe_of


def push_run(
    run: Path, name: str | None, public: bool | None, dry_run: bool, space: bool = False, dataset: bool = False
) -> None:
    """Push a run under a name, or the one of its recipe, with its data and a Space if asked for; or list what would be pushed.

    All have the same name, and are public or private alike; `public` None leaves that to the recipe.
    """
    recipe = recipe_of(run)
    if dataset and recipe is None:
        raise InputError(f"{run} holds no recipe.yaml that names its data, so there are none to push")
    if dry_run:
        say_plan(run, recipe.data.source if recipe and dataset else None, space)
        return
    hub = recipe.hub if recipe else HubSection()
    name = name or hub.repo_id
    if name is None:
        raise InputError("give a name to push to, owner/name, or hub.repo_id in the recipe")
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
