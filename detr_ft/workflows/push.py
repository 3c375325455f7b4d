"""Push a run to the Hub."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from detr_ft.errors import InputError
from detr_ft.hub.push import has_data, push_dataset, push_space
from detr_ft.hub.push import push as push_model
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import plan
from detr_ft.recipe.recipe import HubSection, Recipe
from detr_ft.run_directory import RunDirectory
from detr_ft.utils.arguments import path_text
from detr_ft.utils.hub import check_name
from detr_ft.workflows.splits import PathLike, read_source, recipe_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushOutcome:
    """The files of a push, and its addresses on the Hub, None for what was not pushed.

    `code_files` are those of `files` that the recipe runs, `space_files` are names in the Space; `dataset` is the source
    of the data that go along. `dataset_exists` means that the Hub had them already, and they were not pushed again.
    """

    files: tuple[Path, ...]
    space_files: tuple[str, ...] = ()
    dataset: str | None = None
    model_url: str | None = None
    space_url: str | None = None
    dataset_url: str | None = None
    dataset_exists: bool = False
    code_files: tuple[Path, ...] = ()


def push(
    run: PathLike,
    name: str | None = None,
    *,
    public: bool | None = None,
    space: bool = False,
    dataset: bool = False,
    dry_run: bool = False,
) -> PushOutcome:
    """Push a run to the Hub under `owner/name`, by default `hub.repo_id` of its recipe.

    `space` and `dataset` push a Gradio Space and the data under the same name. `public` is by default as in the recipe,
    which is private. `dry_run` only lists the files. Raises InputError.
    """
    folder = Path(path_text("run", run, "the folder of a run"))
    recipe = recipe_of(folder)
    if dataset and recipe is None:
        raise InputError(f"{folder} has no recipe.yaml that names its data. Push without the data set")
    source = recipe.data.source if recipe and dataset else None
    hub = recipe.hub if recipe else HubSection()
    name = name or hub.repo_id
    if name is None:
        raise InputError("the run has no name on the Hub. Give owner/name, or hub.repo_id in the recipe")
    check_name(name)
    code = tuple(RunDirectory(folder).code_files())
    if dry_run:
        return PushOutcome(tuple(plan(folder)), _space_files(folder, name) if space else (), source, code_files=code)
    for file in code:
        logger.info("code that the recipe runs is uploaded, too: %s", file)
    private = hub.private if public is None else not public
    options = [*(["--dataset"] if dataset else []), *(["--space"] if space else [])]
    dataset_url, exists = _push_data(recipe, name, private) if recipe and dataset else (None, False)
    model_url = push_model(folder, name, private, name if dataset else None, options)
    space_url = push_space(folder, name, private, options) if space else None
    return PushOutcome(tuple(plan(folder)), (), source, model_url, space_url, dataset_url, exists, code)


def _space_files(run: Path, repo_id: str) -> tuple[str, ...]:
    with TemporaryDirectory() as name:
        write_space(run, repo_id, Path(name))
        return tuple(sorted(file.relative_to(name).as_posix() for file in Path(name).rglob("*") if file.is_file()))


def _push_data(recipe: Recipe, name: str, private: bool) -> tuple[str | None, bool]:
    """Push the data of a recipe; return their address, or True if the Hub has a data set of this name."""
    if has_data(name):
        return None, True
    return push_dataset(read_source(recipe.data), name, {}, private), False
