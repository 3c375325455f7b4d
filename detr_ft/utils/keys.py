"""Similar keys for mistyped ones, and for the names that other tools use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_MAX_NAME_CHARS = 200  # the time for a comparison grows with the length
# The keys of common names of other tools.
KEY_OF_ALIAS = {
    "accumulate": "gradient_accumulation_steps",
    "amp": "bf16",
    "batch": "per_device_train_batch_size",
    "batch_size": "per_device_train_batch_size",
    "clip": "max_grad_norm",
    "dataset": "source",
    "ema": "ema_decay",
    "epochs": "num_train_epochs",
    "grad_accum_steps": "gradient_accumulation_steps",
    "image_size": "longest_edge",
    "img_size": "longest_edge",
    "imgsz": "longest_edge",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "num_workers": "dataloader_num_workers",
    "output": "output_dir",
    "path": "source",
    "patience": "early_stopping_patience",
    "pretrained": "checkpoint",
    "resolution": "longest_edge",
    "scheduler": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
    "weights": "checkpoint",
    "workers": "dataloader_num_workers",
}


def words_for(keys: Sequence[str]) -> dict[str, str]:
    """Return keys and their names in other tools, each with its key."""
    return {alias: key for alias, key in KEY_OF_ALIAS.items() if key in keys} | {key: key for key in keys}


def similar_to(name: str, keys: Sequence[str]) -> str | None:
    """Return the key that a name probably means, None if there is none."""
    words = words_for(keys)
    similar = closest(name, words)
    return words[similar] if similar else None


def closest(name: str, words: Iterable[str], min_similarity: float = 0.6) -> str | None:
    """Return the most similar word, None if there is none or the name is too long for one."""
    if len(name) > _MAX_NAME_CHARS:
        return None
    return next(iter(difflib.get_close_matches(name, words, 1, min_similarity)), None)
