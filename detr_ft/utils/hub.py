"""Calls to the Hugging Face Hub: repository names, retries, time limit and readable errors."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from detr_ft.errors import InputError

logger = logging.getLogger(__name__)
T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
# An unreachable or silent server raises an error of the HTTP library, which depends on the version of huggingface_hub. The
# bases of HfHubHTTPError are the base error of that library and OSError.
NETWORK_ERRORS: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OfflineModeIsEnabled)
HTTP_ERRORS: tuple[type[BaseException], ...] = tuple(base for base in HfHubHTTPError.__bases__ if base is not OSError)
_REPOSITORY = re.compile(r"(?!.*(--|\.\.|\.git$))\b[\w.-]+\b/\b[\w.-]{1,96}\b", re.ASCII)
_RETRY_WAITS_SECONDS = (1.0, 3.0, 9.0)
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}


def hub_api(token: str) -> HfApi:
    """Return the client of the Hub that `HF_ENDPOINT` names, or of the public one."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)


def check_name(repo_id: str) -> None:
    """Raise InputError unless the name is `USER/NAME` as the Hub allows it."""
    if not _REPOSITORY.fullmatch(repo_id):
        raise InputError(
            f"{repo_id!r} can't name a repository. Write USER/NAME, with your user or organization on the Hub, in "
            "letters, digits, '-', '_' and '.', without '--', '..' or a final '.git'."
        )


def retry(call: Callable[[], T]) -> T:
    """Return the result of a call that may be repeated, after up to three retries of transient errors.

    `huggingface_hub` retries the requests of its uploads, but not those of its other methods.
    """
    for wait in _RETRY_WAITS_SECONDS:
        try:
            return call()
        except HfHubHTTPError as error:
            if error.response.status_code not in _TRANSIENT_STATUSES:
                raise
            reason = f"HTTP {error.response.status_code}"
        except NETWORK_ERRORS as error:
            reason = str(error) or type(error).__name__
        logger.warning("the Hub is not available (%s); next try in %g s", reason, wait)
        time.sleep(wait)
    return call()


def ensure_repository(api: HfApi, repo_id: str, private: bool, kind: str = "model") -> None:
    """Create a missing repository. Raises InputError for a public one if a private one is wanted."""
    try:
        # The only call with a time limit: it detects a Hub that doesn't respond before anything is uploaded.
        info = retry(lambda: api.repo_info(repo_id, repo_type=kind, timeout=TIMEOUT_SECONDS))
    except RepositoryNotFoundError:
        sdk = "gradio" if kind == "space" else None
        retry(lambda: api.create_repo(repo_id, repo_type=kind, private=private, space_sdk=sdk, exist_ok=True))
        return
    if private and not info.private:
        raise InputError(
            f"{repo_id} exists and is public, and pushes are private by default; nothing was uploaded. "
            "Push to another name, make the repository private, or set public (--public)."
        )


@contextmanager
def hub_errors(action: str, repo_id: str, endpoint: str, hint: str = "") -> Iterator[None]:
    """Raise errors of the Hub and its client as InputError, with a hint at the end."""
    end = f". {hint}" if hint else ""
    try:
        yield
    except HfHubHTTPError as error:
        raise InputError(f"{_refusal(error, repo_id)}{end}") from error
    except NETWORK_ERRORS as error:
        raise InputError(f"the Hub can't be reached at {endpoint} ({error}){end}") from error
    except (ValueError, RuntimeError) as error:  # a refused card or object; errors of the Xet client
        raise InputError(f"{action} {repo_id} failed: {error}{end}") from error


def _refusal(error: HfHubHTTPError, repo_id: str) -> str:
    """Return what an HTTP status means, and how to fix it."""
    status = error.response.status_code
    message = error.server_message or str(error).splitlines()[0]
    meaning = {
        401: "the Hub doesn't accept the token: log in again with `hf auth login`, or set HF_TOKEN",
        403: f"the token may not write to {repo_id}: use one with write access, or another owner",
        409: f"{repo_id} is being changed by another client, or its name is in use",
        412: f"{repo_id} changed during the push",
        413: "the upload is too large for the Hub",
        429: "too many requests to the Hub: wait a few minutes",
    }
    return f"{meaning.get(status, f'the Hub refused the request for {repo_id}')} (HTTP {status}: {message})"
