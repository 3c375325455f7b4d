"""Upload runs, Spaces and data sets to the Hub, without secrets and private by default.

The token comes from `HF_TOKEN` or `hf auth login` through huggingface_hub; it is never written, logged or uploaded. Files that
the Hub has are not sent again, so an interrupted push can be repeated, and a repeated push changes nothing.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import DatasetDict, Image
from huggingface_hub import CommitOperationAdd, DatasetInfo, HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from detr_ft.data.schema import class_names
from detr_ft.errors import InputError
from detr_ft.hub.card import model_card, write_card
from detr_ft.hub.secrets import Content, check_secrets
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import UploadPlan
from detr_ft.run_directory import CARD
from detr_ft.utils.hub import TIMEOUT_SECONDS, check_name, ensure_repository, hub_api, hub_errors, retry

logger = logging.getLogger(__name__)

_MAX_LOGGED_NAMES = 20


def check_plan(plan: UploadPlan, repo_id: str, dataset: str | None = None) -> None:
    """Raise InputError for secrets in the files of a plan, and in the card that the push will write."""
    contents: list[tuple[str, Content]] = [(str(file), file) for file in plan.files]
    if plan.needs_card:
        contents.append((f"the card ({CARD})", str(model_card(plan.run, repo_id, dataset)).encode()))
    check_secrets(contents)


def push(
    plan: UploadPlan, repo_id: str, private: bool = True, dataset: str | None = None, options: Sequence[str] = ()
) -> str:
    """Upload a run to the model repository `USER/NAME` in one commit, and return its URL.

    The repository is created if it is missing, and a card is written into the run if it has none, which names the `dataset` on
    the Hub, if any. `options` are further arguments of the command that repeats the push. An existing public repository raises
    InputError unless `private` is False.
    """
    check_name(repo_id)
    run, command = plan.run, _command(plan.run, repo_id, private, *options)
    token = _token(repo_id, f", then: {command}")
    check_plan(plan, repo_id, dataset)
    if plan.needs_card:
        write_card(run, repo_id, dataset)
    named = {name: run / name for name in plan.names()}
    return _upload(named, repo_id, private, "model", token, f"The run is unchanged in {run}. To push again: {command}")


def push_space(plan: UploadPlan, repo_id: str, private: bool = True, options: Sequence[str] = ("--space",)) -> str:
    """Create or update a self-contained Gradio Space with the demo of a model, and return its URL."""
    check_name(repo_id)
    run, command = plan.run, _command(plan.run, repo_id, private, *options)
    token = _token(repo_id, f", then: {command}")
    with TemporaryDirectory() as name:
        files = space_files(plan, repo_id, Path(name))
        return _upload(
            files, repo_id, private, "space", token, f"The run is unchanged in {run}. To push again: {command}"
        )


def space_files(plan: UploadPlan, repo_id: str, folder: Path) -> dict[str, Path]:
    """Write the Space of a run into a folder and return its files by name.

    Raises InputError for secrets in them.
    """
    write_space(plan, repo_id, folder)
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    check_secrets((f"space: {name}", file) for name, file in files.items())
    return files


def push_dataset(data: DatasetDict, repo_id: str, files: Mapping[str, str], private: bool = True) -> str:
    """Push splits with their images, and text files, to a new or empty data set, and return its URL.

    An existing public data set raises InputError unless `private` is False; secrets in images, class names and files do, too.
    """
    api = hub_api(_token(repo_id))
    check_secrets(_contents(data, files))
    decoded = data.cast_column("image", Image())  # the Hub's viewer and `load_dataset` decode such a column
    with hub_errors("the push to", repo_id, api.endpoint, "The original is unchanged."):
        ensure_repository(api, repo_id, private, "dataset")
        logger.info("pushing %d images to %s", sum(map(len, data.values())), repo_id)
        retry(lambda: decoded.push_to_hub(repo_id, private=private, token=api.token))
        for name, text in files.items():
            retry(partial(_add_file, api, repo_id, name, text))
    return f"{api.endpoint}/datasets/{repo_id}"


def _contents(data: DatasetDict, files: Mapping[str, str]) -> Iterator[tuple[str, Content]]:
    """Yield files, class names and images of a data set, with their names."""
    yield from ((name, text.encode()) for name, text in files.items())
    for name, split in data.items():
        yield f"the class names of {name}", "\n".join(class_names(split)).encode()
        for row in split.with_format(None).select_columns(["image", "image_id"]):
            path = row["image"].get("path")
            content = row["image"].get("bytes") or (Path(path) if path and Path(path).is_file() else None)
            if content is not None:
                yield str(path or f"image {row['image_id']}"), content


def check_target(repo_id: str) -> None:
    """Raise InputError without a token, and for the name of a data set that exists on the Hub."""
    if _dataset_info(repo_id) is not None:
        raise InputError(f"the data set {repo_id} exists on the Hub and is not overwritten. Choose another name.")


def has_data(repo_id: str) -> bool:
    """Return whether the Hub has a data set of this name with data in it.

    An interrupted push leaves an empty one. Raises InputError without a token, for an invalid name, and for a Hub that
    can't be reached.
    """
    info = _dataset_info(repo_id)
    return info is not None and any(file.rfilename.endswith(".parquet") for file in info.siblings or [])


def _dataset_info(repo_id: str) -> DatasetInfo | None:
    check_name(repo_id)
    api = hub_api(_token(repo_id))
    with hub_errors("the request for", repo_id, api.endpoint):
        try:
            return retry(lambda: api.dataset_info(repo_id, timeout=TIMEOUT_SECONDS))
        except RepositoryNotFoundError:
            return None


def _token(repo_id: str, next_step: str = "") -> str:
    token = get_token()
    if token is None:
        raise InputError(
            f"no token to push {repo_id} with: run `hf auth login` once, or set HF_TOKEN to a token that may write{next_step}"
        )
    return token


def _upload(files: Mapping[str, Path], repo_id: str, private: bool, kind: str, token: str, hint: str) -> str:
    api = hub_api(token)
    with hub_errors("the push to", repo_id, api.endpoint, hint):
        ensure_repository(api, repo_id, private, kind)
        names = ": " + ", ".join(files) if len(files) <= _MAX_LOGGED_NAMES else ""
        logger.info("pushing %d files to the %s %s%s", len(files), kind, repo_id, names)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
        retry(
            lambda: api.create_commit(
                repo_id, repo_type=kind, operations=operations, commit_message="Push a run of detr-ft"
            )
        )
    return f"{api.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"


def _add_file(api: HfApi, repo_id: str, name: str, text: str) -> None:
    api.upload_file(
        path_or_fileobj=text.encode(),
        path_in_repo=name,
        repo_id=repo_id,
        repo_type="dataset",
        commit_message=f"Add {name}",
    )


def _command(run: Path, repo_id: str, private: bool, *options: str) -> str:
    """Return the command that repeats the push."""
    return shlex.join(["detr-ft", "push", str(run), repo_id, *options, *([] if private else ["--public"])])
