"""Read a data set of the Hub with `datasets.load_dataset`."""

from __future__ import annotations

from pathlib import Path

from datasets import config, load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.table_rows import load_errors, to_schema
from detr_ft.errors import InputError
from detr_ft.utils.hub import NETWORK_ERRORS, TIMEOUT_SECONDS


def read(name: str, options: ReadOptions) -> SourceData:
    """Read a data set of the Hub, `OWNER/NAME[@REVISION]`, or its copy in the local cache.

    Its rows must have an image, and objects with boxes and categories. The format of the boxes is by default
    recognized.
    """
    repository, _, revision = name.partition("@")
    check_reachable(name)
    with load_errors(f"hub:{name}"):
        raw = load_dataset(repository, revision=revision or None)
    folders = [folder.absolute() for folder in (options.images, Path(repository)) if folder and folder.is_dir()]
    return to_schema(raw, f"hub:{name}", options.box_format, dict.fromkeys(raw, folders))


def check_reachable(name: str) -> None:
    """Raise InputError within seconds for a data set neither on this machine, cached, nor on the Hub."""
    repository, _, revision = name.partition("@")
    reason = "" if Path(repository).exists() else _unreachable(repository, revision or None)
    if reason and not (Path(config.HF_DATASETS_CACHE) / repository.replace("/", "___")).exists():
        raise InputError(
            f"hub:{name}: the Hub can't be reached ({reason}), and the data set is not in the local cache. "
            "Connect, or name data on this machine, for example coco:PATH"
        )


def _unreachable(repository: str, revision: str | None) -> str:
    """Return why the Hub can't be reached, empty if it can. Raises InputError for an unknown data set."""
    try:
        HfApi().dataset_info(repository, revision=revision, timeout=TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        if error.response.status_code >= 500:
            return str(error)
        raise InputError(
            f"hub:{repository}: the Hub has no such data set, or access to it is denied ({error})"
        ) from error
    except ValueError as error:
        raise InputError(f"hub:{repository}: not a name of the Hub, must be OWNER/NAME ({error})") from error
    except NETWORK_ERRORS as error:
        return str(error)
    return ""
