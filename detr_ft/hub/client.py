"""Talking to the Hub: names, patience with what passes, and refusals in words."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from detr_ft.errors import InputError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_NAME = re.compile(r"(?!.*(--|\.\.|\.git$))\b[\w.-]+\b/\b[\w.-]{1,96}\b", re.ASCII)
REACH_SECONDS = 10.0
_WAITS = (1.0, 3.0, 9.0)  # seconds, before each new try
_PASSING = {408, 429, 500, 502, 503, 504}
# HfHubHTTPError derives from its HTTP library's base error, which is httpx's or httpx2's as the version will have it:
# its bases are therefore what an unreachable or silent server raises, whichever library is below.
NETWORK_ERRORS: tuple[type[BaseException], ...] = HfHubHTTPError.__bases__


def hub_api(token: str) -> HfApi:
    """The Hub that `HF_ENDPOINT` names, or the public one."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def check_name(repo_id: str) -> None:
    """A InputError unless the name reads `USER/NAME` as the Hub allows it."""
    if not _NAME.fullmatch(repo_id):
        raise InputError(
            f"{repo_id!r} can't name a repository: write USER/NAME, with your user or organisation on the Hub, in "
            "letters, digits, '-', '_' and '.', none of '--', '..' or a final '.git' among them"
        )


def patiently(call: Callable[[], T]) -> T:
    """The answer of a call that may be made again: a few times more where the Hub is busy, failing or out of reach."""
    for wait in _WAITS:
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _PASSING:
                raise
            why = f"HTTP {error.response.status_code}"
        except NETWORK_ERRORS as error:
            why = str(error) or type(error).__name__
        logger.warning("the Hub doesn't take it now (%s): trying again in %g s", why, wait)
        time.sleep(wait)
    return call()


def ensure_repository(api: HfApi, repo_id: str, private: bool, kind: str = "model") -> None:
    """Make the repository if it is missing; refuse a public one where a private one is wanted."""
    try:
        # The only call with a time limit: it finds a Hub that doesn't answer before anything is uploaded.
        info = patiently(lambda: api.repo_info(repo_id, repo_type=kind, timeout=REACH_SECONDS))
    except RepositoryNotFoundError:
        sdk = "gradio" if kind == "space" else None
        patiently(lambda: api.create_repo(repo_id, repo_type=kind, private=private, space_sdk=sdk, exist_ok=True))
        return
    if private and not info.private:
        raise InputError(
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
