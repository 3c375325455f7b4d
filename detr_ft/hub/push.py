"""Upload runs, Spaces and data sets to the Hub: files of an allow-list only, private by default.

The token comes from `HF_TOKEN` or `hf auth login` through huggingface_hub; it is never written, logged or uploaded. Files that
the Hub has are not sent again, so an interrupted push can be repeated, and a repeated push changes nothing.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import DatasetDict, Image
from huggingface_hub import CommitOperationAdd, DatasetInfo, HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from detr_ft.errors import InputError
from detr_ft.hub.card import write_card
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import check_secrets, plan
from detr_ft.utils.hub import TIMEOUT_SECONDS, check_name, ensure_repository, hub_api, hub_errors, retry

logger = logging.getLogger(__name__)

_MAX_LOGGED_NAMES = 20


def push(run: Path, repo_id: str, private: bool = True, dataset: str | None = None, options: Sequence[str] = ()) -> str:
    """Upload a run to the model repository `USER/NAME` in one commit, and return its URL.

    The repository is created if it is missing, and a card is written into the run if it has none, which names the `dataset` on
    the Hub, if any. `options` are further arguments of the command that repeats the push. An existing public repository raises
    InputError unless `private` is False.
    """
    check_name(repo_id)
    files = plan(run)
    command = _command(run, repo_id, private, *options)
    token = _token(repo_id, f", then: {command}")
    if run / "README.md" not in files:
        files = sorted([*files, write_card(run, repo_id, dataset)])
    check_secrets(files, token)
    named = {file.relative_to(run).as_posix(): file for file in files}
    return _upload(named, repo_id, private, "model", token, f"The run is unchanged in {run}. To push again: {command}")


def push_space(run: Path, repo_id: str, private: bool = True, options: Sequence[str] = ("--space",)) -> str:
    """Create or update a self-contained Gradio Space with the demo of a model, and return its URL."""
    check_name(repo_id)
    command = _command(run, repo_id, private, *options)
    token = _token(repo_id, f", then: {command}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_space(run, repo_id, folder)
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        check_secrets(files.values(), token)
        return _upload(
            files, repo_id, private, "space", token, f"The run is unchanged in {run}. To push again: {command}"
        )


def push_dataset(data: DatasetDict, repo_id: str, files: Mapping[str, str], private: bool = True) -> str:
    """Push splits with their images, and text files, to a new or empty data set, and return its URL.

    An existing public data set raises InputError unless `private` is False.
    """
    api = hub_api(_token(repo_id))
    decoded = data.cast_column("image", Image())  # the Hub's viewer and `load_dataset` decode such a column
    with hub_errors("the push to", repo_id, api.endpoint, "The original is unchanged."):
        ensure_repository(api, repo_id, private, "dataset")
        logger.info("pushing %d images to %s", sum(map(len, data.values())), repo_id)
        retry(lambda: decoded.push_to_hub(repo_id, private=private, token=api.token))
        for name, text in files.items():
            retry(partial(_add_file, api, repo_id, name, text))
    return f"{api.endpoint}/datasets/{repo_id}"


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
