"""Reads a data set of the Hub through `datasets.load_dataset`."""

from __future__ import annotations

from pathlib import Path

from datasets import config, load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.table_rows import loading, to_schema
from detr_ft.errors import InputError
from detr_ft.utils.hub import NETWORK_ERRORS, TIMEOUT_SECONDS


def read(name: str, box_format: BoxFormat | None) -> SourceData:
    """The data set of the Hub called `name` (`USER/NAME`, optionally `@REVISION`), or the copy of it in the local cache.

    Its rows need an image, and objects with boxes and categories; the boxes' format is recognised where `box_format` is None.
    """
    repository, _, revision = name.partition("@")
    check_reachable(name)
    with loading(f"hub:{name}"):
        raw = load_dataset(repository, revision=revision or None)
    places = [Path(repository).absolute()] if Path(repository).is_dir() else []
    return SourceData(to_schema(raw, f"hub:{name}", box_format, dict.fromkeys(raw, places)))


def check_reachable(name: str) -> None:
    """Raise InputError in seconds where a data set is neither on this machine, nor in the cache, nor to be had of the Hub."""
    repository, _, revision = name.partition("@")
    reason = "" if Path(repository).exists() else _unreachable(repository, revision or None)
    if reason and not (Path(config.HF_DATASETS_CACHE) / repository.replace("/", "___")).exists():
        raise InputError(
            f"hub:{name}: the Hub can't be reached ({reason}) and the data set isn't in the local cache; "
            "connect, or name data on this machine, for example coco:PATH"
        )


def _unreachable(repository: str, revision: str | None) -> str:
    """Why the Hub can't answer, or nothing if it does; a data set that it doesn't have or show is the user's mistake."""
    try:
        HfApi().dataset_info(repository, revision=revision, timeout=TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return str(error)
        raise InputError(f"hub:{repository}: the Hub doesn't give out this data set ({error})") from error
    except ValueError as error:
        raise InputError(f"hub:{repository}: not a name of the Hub ({error})") from error
    except NETWORK_ERRORS as error:
        return str(error)
    return ""
