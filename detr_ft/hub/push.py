"""Upload a run to the Hub: the files of an allow-list and nothing else, private unless asked otherwise.

The token comes from `HF_TOKEN` or `hf auth login` through huggingface_hub; it is never written, logged or uploaded. What the
Hub has already is not sent again, so a push that was cut short goes on where it was, and the same one twice changes nothing.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, get_token
from huggingface_hub.errors import HfHubHTTPError

from detr_ft.errors import InputError
from detr_ft.hub.card import write_card
from detr_ft.hub.client import NETWORK_ERRORS, check_name, ensure_repository, hub_api, patiently, refusal
from detr_ft.hub.space import write_space
from detr_ft.hub.upload_plan import plan, refuse_secrets

logger = logging.getLogger(__name__)


def push(run: Path, repo_id: str, private: bool = True, dataset: str | None = None, options: Sequence[str] = ()) -> str:
    """Upload the files of `plan(run)` to the model repository `repo_id` (`USER/NAME`) in one commit; returns its URL.

    The repository is made if it is missing, and a card is written into the run if it has none, which names the `dataset` on the
    Hub where there is one. `options` are others of the command, for the one that pushes again. A repository that exists and is public is not pushed to unless `private` is False.
    """
    check_name(repo_id)
    files = plan(run)
    again = _again(run, repo_id, private, *options)
    token = token_for(repo_id, again)
    if run / "README.md" not in files:
        files = sorted([*files, write_card(run, repo_id, dataset)])
    refuse_secrets(files, token)
    return _upload({file.relative_to(run).as_posix(): file for file in files}, repo_id, private, "model", run, again)


def push_space(run: Path, repo_id: str, private: bool = True, options: Sequence[str] = ("--space",)) -> str:
    """Make or change a Gradio Space that shows the demo with this model; returns its URL. Everything that it needs is in it."""
    check_name(repo_id)
    again = _again(run, repo_id, private, *options)
    token = token_for(repo_id, again)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_space(run, repo_id, folder)
        files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        refuse_secrets(files.values(), token)
        return _upload(files, repo_id, private, "space", run, again)


def token_for(repo_id: str, again: str) -> str:
    """The token of this machine's user. Raises InputError where there is none."""
    token = get_token()
    if token is None:
        raise InputError(
            f"no token to push {repo_id} with: run `hf auth login` once, or set HF_TOKEN to a token that may write, then: {again}"
        )
    return token


def _upload(files: Mapping[str, Path], repo_id: str, private: bool, kind: str, run: Path, again: str) -> str:
    api = hub_api(token_for(repo_id, again))
    unharmed = f"the run is safe in {run}. To push again: {again}"
    try:
        ensure_repository(api, repo_id, private, kind)
        logger.info("pushing %d files to the %s %s%s", len(files), kind, repo_id, _listed(list(files)))
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()]
        patiently(
            lambda: api.create_commit(
                repo_id, repo_type=kind, operations=operations, commit_message="Push a run of detr-ft"
            )
        )
    except HfHubHTTPError as error:
        raise InputError(f"{refusal(error, repo_id)}; {unharmed}") from error
    except NETWORK_ERRORS as error:
        raise InputError(f"the Hub can't be reached at {api.endpoint} ({error}); {unharmed}") from error
    except (ValueError, RuntimeError) as error:  # a refused card or object; what the Xet client raises
        raise InputError(f"the push to {repo_id} failed: {error}; {unharmed}") from error
    return f"{api.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"


def _listed(names: Sequence[str]) -> str:
    return ": " + ", ".join(names) if len(names) <= 20 else ""


def _again(run: Path, repo_id: str, private: bool, *more: str) -> str:
    """The command that pushes the same run again."""
    return shlex.join(["detr-ft", "push", str(run), repo_id, *more, *([] if private else ["--public"])])
