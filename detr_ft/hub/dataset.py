"""Upload a data set to the Hub: a new, private repository with the images inside, and what was changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from datasets import DatasetDict, Image
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from detr_ft.errors import UserError
from detr_ft.hub.client import NETWORK_ERRORS, REACH_SECONDS, check_name, hub_api, refusal

logger = logging.getLogger(__name__)


def check_target(repo_id: str) -> None:
    """A UserError unless there is a token and `repo_id`, `USER/NAME`, is a name that the Hub doesn't know yet."""
    if is_there(repo_id):
        raise UserError(f"the data set {repo_id} exists on the Hub, and nothing is written over; choose another name")


def is_there(repo_id: str) -> bool:
    """Whether the Hub has a data set of this name. Raises UserError without a token, for a name that is none, and for a Hub
    that doesn't answer.
    """
    check_name(repo_id)
    if get_token() is None:
        raise UserError(
            f"no token to push {repo_id} with: run `hf auth login` once, or set HF_TOKEN to a token that may write"
        )
    try:
        _api().dataset_info(repo_id, timeout=REACH_SECONDS)
    except RepositoryNotFoundError:
        return False
    except HfHubHTTPError as error:
        raise UserError(refusal(error, repo_id)) from error
    except NETWORK_ERRORS as error:
        raise UserError(f"the Hub can't be reached at {_api().endpoint} ({error})") from error
    return True


def push_dataset(data: DatasetDict, repo_id: str, files: Mapping[str, str], private: bool = True) -> str:
    """Push the splits, and texts by the names of their files, to the new data set `repo_id`; returns its URL."""
    check_target(repo_id)
    api = _api()
    shown = data.cast_column("image", Image())  # decoded by whoever loads it, and shown by the Hub
    try:
        api.create_repo(repo_id, repo_type="dataset", private=private)
        logger.info("pushing %d images to %s", sum(map(len, data.values())), repo_id)
        shown.push_to_hub(repo_id, private=private, token=api.token)
        for name, text in files.items():
            api.upload_file(
                path_or_fileobj=text.encode(),
                path_in_repo=name,
                repo_id=repo_id,
                repo_type="dataset",
                commit_message=f"Add {name}",
            )
    except HfHubHTTPError as error:
        raise UserError(f"{refusal(error, repo_id)}; the original is as it was") from error
    except NETWORK_ERRORS as error:
        raise UserError(f"the Hub can't be reached at {api.endpoint} ({error}); the original is as it was") from error
    except (ValueError, RuntimeError) as error:  # a refused object; what the Xet client raises
        raise UserError(f"the push to {repo_id} failed: {error}; the original is as it was") from error
    return f"{api.endpoint}/datasets/{repo_id}"


def _api() -> HfApi:
    return hub_api(get_token() or "")
