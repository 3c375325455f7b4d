"""Upload a data set to the Hub: a new, private repository with the images inside, and what was changed."""

from __future__ import annotations

import logging
import os

from datasets import DatasetDict, Image
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from detr_ft.errors import UserError
from detr_ft.hub.push import NETWORK_ERRORS, REACH_SECONDS, check_name, refusal

logger = logging.getLogger(__name__)


def check_target(repo_id: str) -> None:
    """A UserError unless there is a token and `repo_id`, `USER/NAME`, is a name that the Hub doesn't know yet."""
    check_name(repo_id)
    if get_token() is None:
        raise UserError(
            f"no token to push {repo_id} with: run `hf auth login` once, or set HF_TOKEN to a token that may write"
        )
    try:
        _api().dataset_info(repo_id, timeout=REACH_SECONDS)
    except RepositoryNotFoundError:
        return
    except HfHubHTTPError as error:
        raise UserError(refusal(error, repo_id)) from error
    except NETWORK_ERRORS as error:
        raise UserError(f"the Hub can't be reached at {_api().endpoint} ({error})") from error
    raise UserError(f"the data set {repo_id} exists on the Hub, and nothing is written over; choose another name")


def push_dataset(data: DatasetDict, repo_id: str, log_name: str, log: str) -> str:
    """Push the splits, and the text `log` as a file, to the new, private data set `repo_id`; returns its URL."""
    check_target(repo_id)
    api = _api()
    shown = data.cast_column("image", Image())  # decoded by whoever loads it, and shown by the Hub
    try:
        api.create_repo(repo_id, repo_type="dataset", private=True)
        logger.info("pushing %d images to %s", sum(map(len, data.values())), repo_id)
        shown.push_to_hub(repo_id, private=True, token=api.token)
        api.upload_file(
            path_or_fileobj=log.encode(),
            path_in_repo=log_name,
            repo_id=repo_id,
            repo_type="dataset",
            commit_message="What was changed",
        )
    except HfHubHTTPError as error:
        raise UserError(f"{refusal(error, repo_id)}; the original is as it was") from error
    except NETWORK_ERRORS as error:
        raise UserError(f"the Hub can't be reached at {api.endpoint} ({error}); the original is as it was") from error
    except (ValueError, RuntimeError) as error:  # a refused object; what the Xet client raises
        raise UserError(f"the push to {repo_id} failed: {error}; the original is as it was") from error
    return f"{api.endpoint}/datasets/{repo_id}"


def _api() -> HfApi:
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=get_token())
