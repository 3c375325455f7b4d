"""Read weights from files of fixed names: safetensors, and pickled tensors where these are allowed.

transformers would also follow names in JSON files beside the weights: adapters, other formats, files of other folders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RemoteEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from detr_ft.errors import InputError
from detr_ft.run_directory import WEIGHTS

_PICKLED = "pytorch_model.bin"
_ADAPTER = "adapter_config.json"
_MAX_INDEX_BYTES = 2**24  # one line for each tensor
_SHOWN_NAMES, _SHOWN_CHARACTERS = 3, 100


def read_weights(source: str, revision: str | None = None, pickled: bool = False) -> dict[str, Tensor]:
    """Return the weights of a folder or repository, on the CPU, without running code from the files.

    They are in `model.safetensors` or the files that its index names; `pickled` also accepts `pytorch_model.bin` if there
    is neither. Raises InputError, also for adapters beside them, and errors of the Hub's client.
    """
    if _find(source, revision, _ADAPTER) is not None:
        raise InputError(f"{source}: adapters ({_ADAPTER}) are not loaded. Merge them into the model, and save it.")
    for name in (WEIGHTS, _PICKLED) if pickled else (WEIGHTS,):
        files = _files(source, revision, name)
        if files:
            return {key: value for file in files for key, value in _read(file).items()}
    _check_reachable(source, revision)
    raise InputError(
        f"{source}: there is no {WEIGHTS}. If you trust its pickled weights ({_PICKLED}), set model.pickled: true in the recipe."
    )


def read_tensors(file: Path) -> Any:
    """Return the tensors, numbers, texts and containers in a file of `torch.save`, on the CPU.

    Raises InputError for a damaged file and for one with other objects.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}. Restore the file.") from error
    except Exception as error:  # an unpickler raises any exception; torch's messages advise to run the file's code
        raise InputError(
            f"{file}: is damaged, or has other objects than tensors, which are never loaded. Restore the file."
        ) from error


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file, on the CPU. Raises InputError for a damaged file."""
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except OSError as error:
        raise InputError(f"{file}: can't be read: {error.strerror or error}. Restore the file.") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{file}: no valid safetensors file: {error}. Restore the file.") from error
    return tensors


def _files(source: str, revision: str | None, name: str) -> list[Path]:
    """Return the file of a name, or those that the index beside it names; none if there is neither."""
    file = _find(source, revision, name)
    if file is not None:
        return [file]
    index = _find(source, revision, f"{name}.index.json")
    if index is None:
        return []
    names = _names_in(index, Path(name).suffix)
    files = [_find(source, revision, shard) for shard in names]
    missing = [shard for shard, found in zip(names, files, strict=True) if found is None]
    if missing:
        raise InputError(f"{index}: there is no {_shown(missing)}. Complete the checkpoint.")
    return [found for found in files if found is not None]


def _names_in(index: Path, suffix: str) -> list[str]:
    """Return the names in an index. Raises InputError unless all are files of the suffix beside it."""
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise InputError(f"{index}: must be smaller than {_MAX_INDEX_BYTES >> 20} MiB. Save the checkpoint again.")
    try:
        content = json.loads(index.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{index}: no valid JSON: {error}. Save the checkpoint again.") from error
    names = content.get("weight_map") if isinstance(content, Mapping) else None
    if not (isinstance(names, Mapping) and names):
        raise InputError(f"{index}: must have a mapping weight_map from tensors to files. Save the checkpoint again.")
    files = sorted({str(name) for name in names.values()})
    plain = re.compile(rf"\w[\w.-]*{re.escape(suffix)}", re.ASCII)
    wrong = [name for name in files if not plain.fullmatch(name)]
    if wrong:
        raise InputError(
            f"{index}: weight_map must name {suffix[1:]} files beside it, got {_shown(wrong)}. Do not load this checkpoint."
        )
    return files


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(repr(name[:_SHOWN_CHARACTERS]) for name in names[:_SHOWN_NAMES]) + more


def _find(source: str, revision: str | None, name: str) -> Path | None:
    """Return a file of a folder or repository, None if it does not exist."""
    if Path(source).is_dir():
        return Path(source) / name if (Path(source) / name).is_file() else None
    try:
        return Path(hf_hub_download(source, name, revision=revision))
    except EntryNotFoundError:  # also if the Hub is unreachable and the file is not in the cache
        return None


def _check_reachable(source: str, revision: str | None) -> None:
    """Raise LocalEntryNotFoundError if the Hub is unreachable and the cache has no weights."""
    if not Path(source).is_dir():
        with suppress(RemoteEntryNotFoundError):
            hf_hub_download(source, WEIGHTS, revision=revision)


def _read(file: Path) -> dict[str, Tensor]:
    """Return the tensors by name in a file of weights."""
    if file.suffix != Path(_PICKLED).suffix:
        return read_safetensors(file)
    tensors = read_tensors(file)
    if not (isinstance(tensors, Mapping) and all(isinstance(value, Tensor) for value in tensors.values())):
        raise InputError(f"{file}: must have a mapping from names to tensors. Save the checkpoint again.")
    return {str(name): value for name, value in tensors.items()}
