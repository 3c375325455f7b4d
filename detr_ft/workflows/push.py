"""Push a run to the Hub."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from detr_ft.errors import InputError
from detr_ft.hub.push import check_plan, has_data, push_dataset, push_space, space_files
from detr_ft.hub.push import push as push_model
from detr_ft.hub.upload_plan import UploadPlan, plan
from detr_ft.recipe.recipe import HubSection, Recipe
from detr_ft.utils.arguments import path_text
from detr_ft.utils.hub import check_name
from detr_ft.workflows.splits import PathLike, read_source, recipe_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushOutcome:
    """The files of a push, and its addresses on the Hub, None for what was not pushed.

    `code_files` are those of `files` that the recipe runs, `edited_files` those with other content than the run wrote;
    `space_files` are names in the Space; `dataset` is the source of the data that go along. `dataset_exists` means that the
    Hub had them already, and they were not pushed again. `writes_card` means that the push writes the model card.
    """

    files: tuple[Path, ...]
    space_files: tuple[str, ...] = ()
    dataset: str | None = None
    model_url: str | None = None
    space_url: str | None = None
    dataset_url: str | None = None
    dataset_exists: bool = False
    code_files: tuple[Path, ...] = ()
    edited_files: tuple[Path, ...] = ()
    writes_card: bool = False


def push(
    run: PathLike,
    name: str | None = None,
    *,
    public: bool | None = None,
    space: bool = False,
    dataset: bool = False,
    dry_run: bool = False,
    include: Sequence[str] = (),
) -> PushOutcome:
    """Push a run to the Hub under `owner/name`, by default `hub.repo_id` of its recipe.

    `space` and `dataset` push a Gradio Space and the data under the same name. `public` is by default as in the recipe,
    which is private. `dry_run` checks everything and only lists the files. `include` are names of files that the run did not
    write, or that were changed since, to upload nevertheless; card and code may be edited. Raises InputError, also for
    secrets in a file.
    """
    folder = Path(path_text("run", run, "the folder of a run"))
    if name is not None:
        check_name(name)
    recipe = recipe_of(folder)
    if dataset and recipe is None:
        raise InputError(f"{folder} has no recipe.yaml that names its data. Push without the data set")
    source = recipe.data.source if recipe and dataset else None
    hub = recipe.hub if recipe else HubSection()
    name = name or hub.repo_id
    if name is None:
        raise InputError("the run has no name on the Hub. Give owner/name, or hub.repo_id in the recipe")
    check_name(name)
    upload = plan(folder, [include] if isinstance(include, str) else include)
    _log(upload)
    if dry_run or dataset:  # the data are pushed before the model, which is checked when it is pushed
        check_plan(upload, name, name if dataset else None)
    outcome = PushOutcome(
        tuple(folder / file for file in upload.names()),
        _space_files(upload, name) if space else (),
        source,
        code_files=upload.code,
        edited_files=upload.edited,
        writes_card=upload.needs_card,
    )
    if dry_run:
        return outcome
    private = hub.private if public is None else not public
    options = [*(["--dataset"] if dataset else []), *(["--space"] if space else [])]
    dataset_url, exists = _push_data(recipe, name, private) if recipe and dataset else (None, False)
    model_url = push_model(upload, name, private, name if dataset else None, options)
    space_url = push_space(upload, name, private, options) if space else None
    return replace(
        outcome,
        space_files=(),
        model_url=model_url,
        space_url=space_url,
        dataset_url=dataset_url,
        dataset_exists=exists,
    )


def _log(upload: UploadPlan) -> None:
    for file in upload.code:
        logger.info("code that the recipe runs is uploaded, too: %s", file)
    for file in upload.edited:
        logger.warning("%s is uploaded with other content than the run wrote", file)
    if not upload.has_record:
        logger.warning(
            "%s has no record of the files that it wrote, as runs of earlier versions: files with the usual names are "
            "uploaded, also if something else wrote them. List them with dry_run (--dry-run)",
            upload.run,
        )


def _space_files(upload: UploadPlan, repo_id: str) -> tuple[str, ...]:
    with TemporaryDirectory() as name:
        return tuple(space_files(upload, repo_id, Path(name)))


def _push_data(recipe: Recipe, name: str, private: bool) -> tuple[str | None, bool]:
    """Push the data of a recipe; return their address, or True if the Hub has a data set of this name."""
    if has_data(name):
        return None, True
    return push_dataset(read_source(recipe.data), name, {}, private), False
