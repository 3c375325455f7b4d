"""Upload a data set to the Hub: a repository of its own, private unless asked otherwise, with the images inside."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from datasets import DatasetDict, Image
from huggingface_hub import DatasetInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from detr_ft.errors import InputError
from detr_ft.hub.client import (
    NETWORK_ERRORS,
    REACH_SECONDS,
    check_name,
    ensure_repository,
    hub_api,
    patiently,
    refusal,
)

logger = logging.getLogger(__name__)


def check_target(repo_id: str) -> None:
    """A InputError unless there is a token and `repo_id`, `USER/NAME`, is a name that the Hub doesn't know yet."""
    if _info(repo_id) is not None:
        raise InputError(f"the data set {repo_id} exists on the Hub, and nothing is written over; choose another name")


def holds_data(repo_id: str) -> bool:
    """Whether the Hub has a data set of this name with something in it: a push that was cut short leaves an empty one.

    Raises InputError without a token, for a name that is none, and for a Hub that doesn't answer.
    """
    info = _info(repo_id)
    return info is not None and any(one.rfilename.endswith(".parquet") for one in info.siblings or [])


def push_dataset(data: DatasetDict, repo_id: str, files: Mapping[str, str], private: bool = True) -> str:
    """Push the splits, and texts by the names of their files, to a data set `repo_id` that is new or empty; returns its URL.

    One that is there and public is not pushed to unless `private` is False.
    """
    api = _api()
    shown = data.cast_column("image", Image())  # decoded by whoever loads it, and shown by the Hub
    try:
        ensure_repository(api, repo_id, private, "dataset")
        logger.info("pushing %d images to %s", sum(map(len, data.values())), repo_id)
        patiently(lambda: shown.push_to_hub(repo_id, private=private, token=api.token))
        for name, text in files.items():
            patiently(partial(_add, api, repo_id, name, text))
    except HfHubHTTPError as error:
        raise InputError(f"{refusal(error, repo_id)}; the original is as it was") from error
    except NETWORK_ERRORS as error:
        raise InputError(f"the Hub can't be reached at {api.endpoint} ({error}); the original is as it was") from error
    except (ValueError, RuntimeError) as error:  # a refused object; what the Xet client raises
        raise InputError(f"the push to {repo_id} failed: {error}; the original is as it was") from error
    return f"{api.endpoint}/datasets/{repo_id}"


def _add(api: HfApi, repo_id: str, name: str, text: str) -> None:
    api.upload_file(
        path_or_fileobj=text.encode(),
        path_in_repo=name,
        repo_id=repo_id,
        repo_type="dataset",
        commit_message=f"Add {name}",
    )


def _info(repo_id: str) -> DatasetInfo | None:
    check_name(repo_id)
    if get_token() is None:
        raise InputError(
            f"no token to push {repo_id} with: run `hf auth login` once, or set HF_TOKEN to a token that may write"
        )
    try:
        return patiently(lambda: _api().dataset_info(repo_id, timeout=REACH_SECONDS))
    except RepositoryNotFoundError:
        return None
    except HfHubHTTPError as error:
        raise InputError(refusal(error, repo_id)) from error
    except NETWORK_ERRORS as error:
        raise InputError(f"the Hub can't be reached at {_api().endpoint} ({error})") from error


def _api() -> HfApi:
    return hub_api(get_token() or "")
