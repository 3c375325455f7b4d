"""Where a checkpoint comes from: a folder, the Hub or the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError

from detr_ft.errors import InputError
from detr_ft.utils.assets import EMBEDDED, embedded_checkpoint

# The Hub's client raises its HTTP library's errors, and which library that is depends on its version: they are the bases
# of its own error.
_NETWORK_ERRORS = tuple(base for base in HfHubHTTPError.__bases__ if base is not OSError)
_LOAD_ERRORS: tuple[type[BaseException], ...] = (
    OSError, ImportError, ValueError, RuntimeError, SafetensorError, *_NETWORK_ERRORS,
)  # fmt: skip


def commit_of(checkpoint: str, revision: str | None = None) -> str | None:
    """The commit that a name on the Hub stands for now, or in the cache where the Hub is out of reach; None of what lies here.

    Raises InputError as `load_model` does.
    """
    if not on_the_hub(checkpoint):
        return None
    with _explained(checkpoint):
        # It lies in snapshots/COMMIT of the cache.
        return Path(hf_hub_download(resolve(checkpoint), "config.json", revision=revision)).parent.name


@contextmanager
def _explained(checkpoint: str) -> Iterator[None]:
    """What loading raises, as a InputError."""
    try:
        yield
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError) as error:
        raise InputError(
            f"{checkpoint}: the Hub has no such model, or you have no access: {_first_line(error)}"
        ) from error
    except _LOAD_ERRORS as error:
        raise InputError(_explain(checkpoint, error)) from error


def on_the_hub(checkpoint: str) -> bool:
    """Whether a checkpoint that loads is a repository of the Hub, and no folder of this machine."""
    return not checkpoint.startswith("embedded:") and not Path(checkpoint).is_dir()


def resolve(checkpoint: str) -> str:
    """Where transformers finds a checkpoint: a folder, or a name on the Hub. Raises InputError for a folder that isn't there or is no checkpoint."""
    if checkpoint.startswith("embedded:"):
        name = checkpoint.removeprefix("embedded:")
        if name not in EMBEDDED:
            raise InputError(f"{checkpoint}: there is no such embedded checkpoint; there is {', '.join(EMBEDDED)}")
        return str(embedded_checkpoint(name))
    folder = Path(checkpoint)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{checkpoint}: this folder holds no config.json, so it is no checkpoint")
        return checkpoint
    # `runs/mine` could be on the Hub too, but where there is a folder `runs` nobody means that.
    if (
        folder.exists()
        or checkpoint.count("/") != 1
        or checkpoint.startswith((".", "~", "/"))
        or folder.parent.is_dir()
    ):
        raise InputError(
            f"{checkpoint}: there is no such folder{_neighbours(folder)} (a model on the Hub is written owner/name)"
        )
    return checkpoint


def _neighbours(folder: Path) -> str:
    there = sorted(one.name for one in folder.parent.iterdir() if one.is_dir()) if folder.parent.is_dir() else []
    close = difflib.get_close_matches(folder.name, there, n=1)
    return f"; did you mean {folder.parent / close[0]}?" if close else ""


def _explain(checkpoint: str, error: BaseException) -> str:
    text = str(error)
    if isinstance(error, _NETWORK_ERRORS) or "connect" in text or "offline" in text.lower():
        return (
            f"{checkpoint}: the Hub can't be reached and the model is not in the local cache; "
            "check the network, or give the folder of a checkpoint"
        )
    if "file named model.safetensors" in text:
        return (
            f"{checkpoint}: there is no model.safetensors; if its weights are pickled (pytorch_model.bin) and you trust "
            "them, a recipe says so with model.pickled: true"
        )
    if "timm" in text:
        return (
            f"{checkpoint}: its backbone comes from timm, is no plain ResNet, and timm doesn't work here: "
            "pip install timm torchvision, or take a checkpoint with a ResNet"
        )
    return f"{checkpoint}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
