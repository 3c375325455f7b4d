"""Upload a run to the Hub: the files of an allow-list and nothing else, private unless asked otherwise.

The token comes from `HF_TOKEN` or `hf auth login` through huggingface_hub; it is never written, logged or uploaded.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from detr_ft.errors import UserError
from detr_ft.hub.card import write_card

logger = logging.getLogger(__name__)

_ALLOWED = re.compile(
    r"config\.json|preprocessor_config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|README\.md|recipe\.yaml|metrics\.json|report\.html"
)
_NAME = re.compile(r"(?!.*(--|\.\.|\.git$))\b[\w.-]+\b/\b[\w.-]{1,96}\b", re.ASCII)
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
REACH_SECONDS = 10.0
# HfHubHTTPError derives from its HTTP library's base error, which is httpx's or httpx2's as the version will have it:
# its bases are therefore what an unreachable or silent server raises, whichever library is below.
NETWORK_ERRORS: tuple[type[BaseException], ...] = HfHubHTTPError.__bases__


def push(run: Path, repo_id: str, private: bool = True) -> str:
    """Upload the files of `plan(run)` to the model repository `repo_id` (`USER/NAME`) in one commit; returns its URL.

    The repository is made if it is missing, and a card is written into the run if it has none. A repository that
    exists and is public is not pushed to unless `private` is False.
    """
    check_name(repo_id)
    files = plan(run)
    token = get_token()
    if token is None:
        raise UserError(
            f"no token to push {repo_id} with: run `hf auth login` once, or set HF_TOKEN to a token that may write, "
            f"then: {_again(run, repo_id, private)}"
        )
    if run / "README.md" not in files:
        files = sorted([*files, write_card(run, repo_id)])
    _refuse_secrets(files, token)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        _ensure_repository(api, repo_id, private)
        logger.info("pushing %d files to %s: %s", len(files), repo_id, ", ".join(file.name for file in files))
        api.create_commit(
            repo_id,
            operations=[CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files],
            commit_message="Push a run of detr-ft",
        )
    except HfHubHTTPError as error:
        raise UserError(f"{refusal(error, repo_id)}; {_unharmed(run, repo_id, private)}") from error
    except NETWORK_ERRORS as error:
        raise UserError(
            f"the Hub can't be reached at {api.endpoint} ({error}); {_unharmed(run, repo_id, private)}"
        ) from error
    except (ValueError, RuntimeError) as error:  # a refused card or object; what the Xet client raises
        raise UserError(f"the push to {repo_id} failed: {error}; {_unharmed(run, repo_id, private)}") from error
    return f"{api.endpoint}/{repo_id}"


def plan(run: Path) -> list[Path]:
    """The files of a run directory that a push uploads, sorted: a dry run, without a network.

    Only names of the allow-list, at the top of the directory; links are left out, since they may lead anywhere.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run directory")
    files = sorted(
        file for file in run.iterdir() if _ALLOWED.fullmatch(file.name) and file.is_file() and not file.is_symlink()
    )
    names = {file.name for file in files}
    missing = [] if "config.json" in names else ["config.json"]
    if not any(name.endswith(".safetensors") for name in names):
        missing.append("model.safetensors")
    if missing:
        raise UserError(
            f"{run}: not a run: it has no {' and no '.join(missing)} (as a plain file); "
            "give the directory that `detr-ft train` wrote"
        )
    return files


def check_name(repo_id: str) -> None:
    """A UserError unless the name reads `USER/NAME` as the Hub allows it."""
    if not _NAME.fullmatch(repo_id):
        raise UserError(
            f"{repo_id!r} can't name a repository: write USER/NAME, with your user or organisation on the Hub, in "
            "letters, digits, '-', '_' and '.', none of '--', '..' or a final '.git' among them"
        )


def _refuse_secrets(files: list[Path], token: str) -> None:
    """A UserError that names every text file holding the token, another token or a private key."""
    found = []
    for file in files:
        if file.suffix == ".safetensors":
            continue
        content = file.read_bytes()
        if token.encode() in content or _SECRET.search(content):
            found.append(
                f"{file}: holds a token or a key; nothing was uploaded: remove it from the file, and revoke it"
            )
    if found:
        raise UserError(found)


def _ensure_repository(api: HfApi, repo_id: str, private: bool) -> None:
    """Make the repository if it is missing; refuse a public one where a private one is wanted."""
    try:
        # The only call with a time limit: it finds a Hub that doesn't answer before anything is uploaded.
        info = api.model_info(repo_id, timeout=REACH_SECONDS)
    except RepositoryNotFoundError:
        api.create_repo(repo_id, private=private)
        return
    if private and not info.private:
        raise UserError(
            f"{repo_id} exists and is public, and a push is private unless asked otherwise: nothing was uploaded. "
            "Push to another name, make the repository private, or add --public"
        )


def refusal(error: HfHubHTTPError, repo_id: str) -> str:
    """What the Hub's answer means and what to do, in one sentence."""
    status = error.response.status_code
    said = error.server_message or str(error).splitlines()[0]
    meaning = {
        401: "the Hub doesn't accept the token: log in again with `hf auth login`, or set HF_TOKEN",
        403: f"the token may not write to {repo_id}: take one with write access, or another owner",
        409: f"{repo_id} is being changed by somebody else, or its name is taken",
        412: f"{repo_id} changed during the push",
        413: "the Hub finds the upload too large",
        429: "the Hub asks to slow down: wait a few minutes",
    }
    return f"{meaning.get(status, f'the Hub failed to take {repo_id}')} (HTTP {status}: {said})"


def _unharmed(run: Path, repo_id: str, private: bool) -> str:
    return f"the run is safe in {run}. To push again: {_again(run, repo_id, private)}"


def _again(run: Path, repo_id: str, private: bool) -> str:
    """The command that pushes the same run again."""
    return shlex.join(["detr-ft", "push", str(run), repo_id, *([] if private else ["--public"])])
